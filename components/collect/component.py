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
    run_key: str,
    job_id: str,
    answers_sha256: str = "",
) -> None:
    """Export the judgements of a complete campaign, and measure how good they are.

    Args:
        campaign: The campaign, as stage annotate wrote it.
        candidates: Tasks and candidate edits, as stage candidates wrote them.
        judgements: The experts' judgements.
        metrics: Figures for the UI.
        page: Page for the UI.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
        answers_sha256: Content address of the answers that the campaign was closed with; empty takes the present answers.
    """
    arguments = dict(locals())
    from components.collect.declaration import COLLECT
    from editloop.lineage.step import run_component

    run_component(COLLECT, arguments)
