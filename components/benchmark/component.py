"""KFP component of stage benchmark. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def benchmark(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    benchmark: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Measure the reward model on held-out pairs, and decide whether it may replace the champion.

    Args:
        dataset: Preference pairs, as stage dataset wrote them.
        model: The reward model, as stage reward wrote it.
        benchmark: Figures on held-out pairs, and the gate's verdict.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: champion, gate, seed.
    """
    arguments = dict(locals())
    from components.benchmark.declaration import BENCHMARK
    from editloop.lineage.step import run_component

    run_component(BENCHMARK, arguments)
