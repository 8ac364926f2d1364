"""Stage `annotate`: open a campaign in Label Studio for a folder of candidates, and end. Nobody is waited for."""

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

    `lead` decides tasks in conflict. `candidates_per_task` candidates stand on a page (0 = all); `axes` is JSON of
    other words for an axis, {"if": {"name": ..., "levels": [...]}}. Gold pages (made of targets, or of `gold_answers`,
    CSV text) and repeats are shares of the number of tasks. `guidelines` is Markdown text, empty for the usual ones.
    `alpha_if` and `alpha_vq` are the lowest agreement to close at, 0 for no gate. `seed` draws every order.

    Writes campaign.json, pages.jsonl, settings.json, guidelines.md and the pictures that only gold pages show into
    `output`. Calling again with the same arguments finds the same campaign and adds nothing to it. Returns {"tasks",
    "pages", "annotations_wanted"}.
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
