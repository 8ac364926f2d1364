"""KFP component of stage promote. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def promote(
    model: dsl.Input[dsl.Model],
    benchmark: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    version: dsl.Input[dsl.Artifact],
    promotion: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Register the reward model as challenger, and as champion when its gate says so.

    Args:
        model: The reward model, as stage reward wrote it.
        benchmark: Figures and verdict, as stage benchmark wrote them.
        dataset: The pairs or the teacher's rows that the model was trained on.
        version: The version that was written with them, a JSON file.
        promotion: What the registry did.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: name.
    """
    arguments = dict(locals())
    from components.promote.declaration import PROMOTE
    from editloop.lineage.step import run_component

    run_component(PROMOTE, arguments)
