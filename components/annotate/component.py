"""KFP component of stage annotate. Generated from declaration.py by `make generate`; do not edit."""

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
    """Open a campaign in Label Studio, without waiting for the experts.

    Args:
        candidates: Tasks and candidate edits, as stage candidates wrote them.
        campaign: The open campaign.
        metrics: Figures for the UI.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
        name: Name of the campaign in Label Studio.
        annotators: Account names of the experts.
        overlap: Number of experts who judge each task; agreement needs two or more.
        lead: Account name of the lead, who decides tasks in conflict; empty for none.
        candidates_per_task: Candidates on a page, 2 to 7; 0 shows all.
        axes: Other words for the axes, as JSON: {"if": {"name": ..., "levels": [...]}}.
        gold_share: Gold pages (pages with a known answer) per task, 0 to 0.5, made where tasks have a target.
        gold_answers: The lead's own known answers for gold pages, as CSV text with the columns task, candidate, if, vq.
        repeat_share: Pages per task that are repeated, 0 to 0.5, with the candidates in another order.
        guidelines: Guidelines for annotators, in Markdown; empty for the default ones.
        alpha_if: Lowest agreement (Krippendorff's alpha) on instruction following at which a campaign closes by itself; 0 for no gate.
        alpha_vq: Lowest agreement on visual quality, likewise.
        seed: Seed of every order and draw.
        follow_up: Arguments of the pipelines that start when the campaign is complete, by pipeline, as JSON: {"train-reward": {"epochs": 8}, "improve-editor": {"prompts_uri": "s3://...", "heldout_uri": "s3://..."}}. improve-editor starts only if it is named.
    """
    arguments = dict(locals())
    from components.annotate.declaration import ANNOTATE
    from editloop.lineage.step import run_component

    run_component(ANNOTATE, arguments)
