"""Stage `annotate`: open a campaign in Label Studio for a folder of candidates. It does not wait for the annotators."""

import logging
from pathlib import Path

from annotation.campaigns.campaign import connect
from annotation.campaigns.campaign_settings import settings_of
from annotation.campaigns.invitations import PAGE, invitation_lines, invitations, write_page
from annotation.campaigns.opening import open_campaign
from components.annotate.declaration import ANNOTATE, AnnotateParameters
from editloop.content import complete_folder
from infra.settings import service_settings

log = logging.getLogger("editloop.annotate")


def run_annotate(candidates: Path, output: Path, parameters: AnnotateParameters) -> dict[str, float]:
    """Open the campaign named `campaign`, where each task is rated by `overlap` of the `annotators`.

    The same arguments find the same campaign and add nothing to it.

    Args:
        candidates: Candidates folder.
        output: Folder to write: campaign.json, pages.jsonl, settings.json, guidelines.md, training.jsonl (where there
            is a training round), page.html (what the lead sends to whom), and the images that only gold pages show.
        parameters: The stage's parameters.

    Returns:
        The numbers of `tasks`, `pages` and `annotations_wanted`.

    Raises:
        EditLoopError: The parameters have faults or do not fit the candidates, or Label Studio does not accept the
            campaign or an annotator's account.
    """
    campaign_settings = settings_of(**parameters.model_dump(exclude=set(ANNOTATE.tags)))
    settings = service_settings()
    client = connect(settings)
    facts: dict[str, str] = {}
    with complete_folder(output, facts) as folder:
        opened = open_campaign(client, settings, candidates, campaign_settings, folder)
        invited = invitations(settings, opened)
        write_page(invited, opened, folder / PAGE)
        facts |= {"campaign_key": opened.key, "config_sha256": opened.config_sha256}
    log.info("campaign %s is open: %s", opened.name, opened.url)
    for line in invitation_lines(invited, passwords=False):
        log.info("%s", line)
    return {"tasks": opened.tasks, "pages": opened.pages, "annotations_wanted": opened.wanted}
