"""The KFP face of the annotate stage."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def annotate(
    candidates: dsl.Input[dsl.Dataset],
    campaign: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    run_key: str,
    job_id: str,
    name: str,
    annotators: list,
    overlap: int = 2,
    lead: str = "",
    candidates_per_task: int = 0,
    axes: str = "{}",
    gold_share: float = 0.0,
    gold_answers: str = "",
    repeat_share: float = 0.0,
    guidelines: str = "",
    alpha_if: float = 0.0,
    alpha_vq: float = 0.0,
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
        lead: Account name of who decides tasks in conflict, empty for nobody.
        candidates_per_task: Candidates on a page, 0 for all.
        axes: Other words for an axis, as JSON.
        gold_share: Pages with a known answer for each task, made where tasks have a target.
        gold_answers: Known answers of the lead's own, CSV text with columns task, candidate, if, vq.
        repeat_share: Pages asked a second time for each task.
        guidelines: What annotators read first, Markdown, empty for the usual guidelines.
        alpha_if: Lowest agreement on instruction following to close at, 0 for no gate.
        alpha_vq: Lowest agreement on visual quality to close at, 0 for no gate.
        seed: Seed of every order and draw.
        follow_up: Arguments of the pipelines that start when the campaign is complete, by pipeline, as JSON.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from editloop.lineage.step import run_step

    run_step(
        "annotate",
        pipeline_run=run_key or job_id,
        inputs={"candidates": candidates},
        outputs={"output": campaign},
        parameters={
            "campaign": name,
            "annotators": annotators,
            "overlap": overlap,
            "lead": lead,
            "candidates_per_task": candidates_per_task,
            "axes": axes,
            "gold_share": gold_share,
            "gold_answers": gold_answers,
            "repeat_share": repeat_share,
            "guidelines": guidelines,
            "alpha_if": alpha_if,
            "alpha_vq": alpha_vq,
            "seed": seed,
        },
        tags={"follow_up": follow_up},
        metrics=metrics,
    )
