"""Stage `annotate`: open a campaign in Label Studio for a folder of candidates. It does not wait for the annotators."""

from pathlib import Path

from annotation.campaigns.campaign import connect
from annotation.campaigns.campaign_settings import settings_of
from annotation.campaigns.opening import open_campaign
from editloop.content import complete_folder
from infra.settings import service_settings


def run_annotate(
    candidates: Path,
    output: Path,
    *,
    campaign: str,
    annotators: list[str],
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
) -> dict[str, float]:
    """Open the campaign named `campaign`, where each task is rated by `overlap` of the `annotators`.

    The same arguments find the same campaign and add nothing to it.

    Args:
        candidates: Candidates folder.
        output: Folder to write: campaign.json, pages.jsonl, settings.json, guidelines.md, and the images that only gold
            pages show.
        campaign: Name of the campaign.
        annotators: Account names of the annotators.
        overlap: Annotators per task.
        lead: Account name of the lead, who decides tasks in conflict; "" for none.
        candidates_per_task: Candidates on a page; 0 for all.
        axes: JSON object of other words by axis: {"if": {"name": ..., "levels": [...]}}.
        gold_share: Gold pages (pages with a known answer) per task, made where tasks have a target.
        gold_answers: The lead's known answers as CSV text, for gold pages; "" for none.
        repeat_share: Repeated pages per task.
        guidelines: Guidelines in Markdown; "" for the default ones.
        alpha_if: Lowest agreement (alpha) on instruction following to close at; 0 for no gate.
        alpha_vq: Lowest agreement (alpha) on visual quality to close at; 0 for no gate.
        seed: Seed of all draws and orders.

    Returns:
        The numbers of `tasks`, `pages` and `annotations_wanted`.

    Raises:
        EditLoopError: The parameters have faults or do not fit the candidates, an annotator has no account, or Label
            Studio does not accept the campaign.
    """
    campaign_settings = settings_of(
        campaign,
        annotators=annotators,
        overlap=overlap,
        lead=lead,
        candidates_per_task=candidates_per_task,
        axes=axes,
        gold_share=gold_share,
        gold_answers=gold_answers,
        repeat_share=repeat_share,
        guidelines=guidelines,
        alpha_if=alpha_if,
        alpha_vq=alpha_vq,
        seed=seed,
    )
    settings = service_settings()
    client = connect(settings)
    facts: dict[str, str] = {}
    with complete_folder(output, facts) as folder:
        opened = open_campaign(client, settings, candidates, campaign_settings, folder)
        facts |= {"campaign_key": opened.key, "config_sha256": opened.config_sha256}
    return {"tasks": opened.tasks, "pages": opened.pages, "annotations_wanted": opened.wanted}
