"""The KFP face of the collect stage."""

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
    """Export a complete campaign, and measure how good its ratings are.

    Args:
        campaign: The open campaign.
        candidates: Tasks and candidate edits.
        judgements: The experts' ratings.
        metrics: Figures for the UI.
        page: Page for the UI.
        answers_sha256: Answers that the campaign was closed with; empty takes those that are there.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from editloop.lineage.step import run_step

    run_step(
        "collect",
        pipeline_run=run_key or job_id,
        inputs={"campaign": campaign, "candidates": candidates},
        outputs={"output": judgements},
        parameters={"answers_sha256": answers_sha256},
        metrics=metrics,
        page=page,
    )
