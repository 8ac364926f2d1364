"""KFP component of stage collect. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def collect(
    campaign: dsl.Input[dsl.Artifact],
    candidates: dsl.Input[dsl.Dataset],
    judgements: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Export the judgements of a complete campaign, and measure how good they are.

    Args:
        campaign: The campaign, as stage annotate wrote it.
        candidates: Tasks and candidate edits, as stage candidates wrote them.
        judgements: The experts' judgements.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: answers_sha256.
    """
    arguments = dict(locals())
    from components.collect.declaration import COLLECT
    from editloop.lineage.step import run_component

    run_component(COLLECT, arguments)
