"""Stage `annotate`: open a campaign in Label Studio for a folder of candidates, and end. Nobody is waited for."""

from pathlib import Path

from annotation.campaign import connect, open_campaign
from infra.content import complete_folder, write_json
from infra.settings import service_settings


def annotate(
    candidates: Path, output: Path, *, campaign: str, annotators: list[str], overlap: int = 2, seed: int = 0
) -> dict[str, float]:
    """Open the campaign named `campaign`, where each task is rated by `overlap` of the `annotators`.

    Writes `campaign.json` into `output`. `seed` draws the order in which a page shows its candidates. Calling again
    with the same arguments finds the same campaign and adds nothing to it. Returns {"tasks", "annotations_wanted"}.
    """
    settings = service_settings()
    client = connect(settings)
    opened = open_campaign(
        client, settings, candidates, name=campaign, overlap=overlap, annotators=annotators, seed=seed
    )
    with complete_folder(output, {"campaign_key": opened.key, "config_sha256": opened.config_sha256}) as folder:
        write_json(folder / "campaign.json", opened.model_dump(mode="json"))
    return {"tasks": opened.tasks, "annotations_wanted": opened.tasks * opened.overlap}
