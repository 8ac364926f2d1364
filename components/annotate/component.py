"""The KFP face of the annotate stage."""

from kfp import dsl

from infra.settings import service_settings


@dsl.component(base_image=service_settings().image, install_kfp_package=False)
def annotate(
    candidates: dsl.Input[dsl.Dataset],
    campaign: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    run_key: str,
    job_id: str,
    name: str,
    annotators: list,
    overlap: int = 2,
    seed: int = 0,
    follow_up: str = "{}",
) -> None:
    """Open a campaign in Label Studio; it is not waited for.

    Args:
        candidates: Tasks and candidate edits.
        campaign: The open campaign.
        metrics: Figures for the UI.
        name: The campaign's name.
        annotators: Account names of the experts.
        overlap: Experts a task.
        seed: Seed of the candidates' order on the page.
        follow_up: Arguments of the pipelines that start when the campaign is complete, by pipeline, as JSON.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from components.step import run_step

    run_step(
        "annotate",
        pipeline_run=run_key or job_id,
        inputs={"candidates": candidates},
        outputs={"output": campaign},
        parameters={"campaign": name, "annotators": annotators, "overlap": overlap, "seed": seed},
        tags={"follow_up": follow_up},
        metrics=metrics,
    )
