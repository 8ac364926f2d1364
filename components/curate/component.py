"""KFP component of stage curate. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def curate(
    noisy: dsl.Input[dsl.Dataset],
    curated: dsl.Output[dsl.Dataset],
    version: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Keep the edits that a registered reward model scores best, as a dataset version to fine-tune on.

    Args:
        noisy: Noisy edits: an edits folder's candidates, or its targets where no row has any.
        curated: The kept edits, each as the target of a row.
        version: The version in the dataset repository, a JSON file.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: judge, order, best, threshold, uncertainty, most_missing, seed.
    """
    arguments = dict(locals())
    from components.curate.declaration import CURATE
    from editloop.lineage.step import run_component

    run_component(CURATE, arguments)
