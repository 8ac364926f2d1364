"""The lineage chain from a model's training data back to its origin.

Curated edits lead to the judge that chose them. Preferences lead to the annotators, through Git, DVC, the label export,
the campaign, its answers and its candidates.
"""

import tempfile
from pathlib import Path
from typing import Any

from annotation.campaigns.answers import answers_sha256, changed_annotations
from annotation.campaigns.campaign import Campaign, connect
from annotation.campaigns.closing import DIGESTS, closing_of, parse_digests
from annotation.campaigns.label_studio import LabelStudioApi, read_project
from annotation.campaigns.labelling import config_sha256
from annotation.campaigns.lead_queue import snapshot
from annotation.campaigns.locating import campaign_files
from annotation.campaigns.record import CampaignRecord, is_recorded, read_records
from editloop.content import sha256_bytes, sha256_json
from editloop.data.data_origin import DataOrigin
from editloop.datasets.votes import DECISIONS, JUDGEMENTS, Votes, read_votes
from editloop.lineage import tracking
from editloop.lineage.chain import Chain, Gap, finished_run, look_up
from editloop.lineage.data_links import edits_link
from editloop.lineage.kept_artifacts import fetch_logged_files
from infra.settings import service_settings

EXPORT, VOTE_FILES = "export.json", (JUDGEMENTS, DECISIONS)
"""Files that a collect run logs: Label Studio's export, and the votes read from it. DIGESTS is one too."""


def judgement_links(
    chain: Chain, facts: dict[str, Any], votes: Votes | None = None, *, accept_unsigned: bool = False
) -> None:
    """Add the links from a dataset to its judgements, label export, campaign, answers, candidates and annotators.

    For imported ratings the chain ends at the files that were imported.

    Args:
        chain: The chain to extend.
        facts: Facts of the dataset's manifest.
        votes: The dataset's votes, which must be among those of the judgements; None skips this check.
        accept_unsigned: Whether the chain may end, with a warning, at the label export of a campaign without any record
            in MLflow, as release 0.2.0 and earlier ones opened it.

    Raises:
        Gap: A link is missing or does not hold.
    """
    if facts.get("campaign_key"):
        _collect_links(chain, facts, votes, accept_unsigned)
    else:
        _import_links(chain, facts)
    if not facts.get("annotators"):
        raise Gap("annotators: the dataset names none")
    chain.add("annotators", ", ".join(facts["annotators"]))


def _import_links(chain: Chain, facts: dict[str, Any]) -> None:
    """Add the links of imported ratings: judgements, candidates, the origin, and the files that were read."""
    chain.add("judgements", str(facts.get("judgements_sha256")))
    if not facts.get("export_sha256"):
        raise Gap("imported ratings: the dataset names neither a campaign nor a file that its ratings came from")
    if not facts.get("origin"):  # imported by an earlier version
        chain.add("imported ratings", f"{facts['export_sha256']} (a file from elsewhere: here the chain ends)")
        return
    if sha256_json(facts["origin"]) != facts["export_sha256"]:
        raise Gap(f"imported ratings: the origin that the dataset states is not {facts['export_sha256']}")
    origin = look_up("imported ratings", lambda: DataOrigin.model_validate(facts["origin"]))
    chain.add("candidates", f"{facts.get('candidates_sha256')} (imported with the ratings)")
    chain.add("imported ratings", str(facts["export_sha256"]))
    chain.add("source files", origin.text())


def _collect_links(chain: Chain, facts: dict[str, Any], votes: Votes | None, accept_unsigned: bool) -> None:
    judgements, key = str(facts.get("judgements_sha256")), str(facts.get("campaign_key"))
    run = finished_run("judgements", "collect", judgements)
    chain.add("judgements", judgements)
    records = look_up("campaign", lambda: read_records(service_settings(), key))
    is_unsigned = not records and not look_up("campaign", lambda: is_recorded(key))
    names = (EXPORT, *VOTE_FILES) if is_unsigned else (EXPORT, DIGESTS, *VOTE_FILES)
    with tempfile.TemporaryDirectory() as temporary:
        files = look_up("label export", lambda: fetch_logged_files(run, Path(temporary), names))
        vote_data = files[EXPORT].read_bytes()
        digests = {} if is_unsigned else parse_digests(files[DIGESTS].read_bytes())
        collected_votes = look_up("judgements", lambda: read_votes(Path(temporary)))
    if sha256_bytes(vote_data) != facts.get("export_sha256"):
        raise Gap(
            f"label export: run {run.info.run_id} keeps {sha256_bytes(vote_data)}, not {facts.get('export_sha256')}"
        )
    if votes is not None and not (
        set(votes.judged) <= set(collected_votes.judged) and set(votes.decided) <= set(collected_votes.decided)
    ):
        raise Gap(f"judgements: the dataset has ratings that nobody gave in {judgements}")
    chain.add("label export", str(facts["export_sha256"]))
    if is_unsigned:
        _unsigned_campaign(chain, facts, accept_unsigned)
        return
    if not records:
        raise Gap(f"campaign: MLflow has no record of {key}")
    campaign = _campaign(chain, facts, digests, records[0])
    _candidates(chain, facts, campaign)


def _unsigned_campaign(chain: Chain, facts: dict[str, Any], accept_unsigned: bool) -> None:
    """End the chain at a campaign without a record, where that is accepted."""
    key = facts.get("campaign_key")
    if not accept_unsigned:
        raise Gap(
            f"campaign: MLflow has no record of {key}. Release 0.2.0 and earlier ones kept none, so nothing shows "
            "whose its answers are: accept that by --unsigned-campaigns, or train on a campaign of this version"
        )
    _gate(chain, facts)
    chain.add("campaign", f"{key}, without a signed record: here the chain ends", warning=True)


def _campaign(chain: Chain, facts: dict[str, Any], digests: dict[int, str], record: CampaignRecord) -> Campaign:
    """Add the campaign, its labelling config and its answers, compared with what Label Studio has now."""
    key, expected, settings = str(facts.get("campaign_key")), facts.get("config_sha256"), service_settings()
    campaign = record.campaign
    look_up("campaign", lambda: connect(settings))
    project = look_up("campaign", lambda: read_project(LabelStudioApi(settings), campaign.project_id, campaign.name))
    chain.add("campaign", f"{campaign.name} ({key})")
    live = config_sha256(project["label_config"])
    if live != expected:
        raise Gap(f"labelling config: campaign {key} was judged with {expected}, Label Studio has {live}")
    chain.add("labelling config", live)
    _answers(chain, facts, digests, record)
    _gate(chain, facts)
    return campaign


def _answers(chain: Chain, facts: dict[str, Any], digests: dict[int, str], record: CampaignRecord) -> None:
    """Compare the answers that the judgements were read from with those that Label Studio has now."""
    settings, trained, campaign = service_settings(), facts.get("answers_sha256"), record.campaign
    if answers_sha256(digests) != trained:
        raise Gap(f"answers: the collect run kept {answers_sha256(digests)}, the judgements were of {trained}")
    live = look_up("answers", lambda: snapshot(settings, record, campaign_files(record).pages()))
    if live.sha256 == trained:
        chain.add("answers", str(trained))
        return
    changed = changed_annotations(digests, live.digests)
    closing = closing_of(record.closings, live.sha256)
    if closing is None:
        raise Gap(
            f"answers: edited since the judgements were read: {changed}. Restore them, or take them as they are now by "
            f'`editloop campaign close "{campaign.name}"`, which trains anew'
        )
    chain.add("answers", f"{trained}; {changed} later, closed again on {closing.at:%Y-%m-%d %H:%M} UTC")


def _gate(chain: Chain, facts: dict[str, Any]) -> None:
    """Add the campaign's agreement gates, and who accepted it below them."""
    alphas, gates, accepted = facts.get("alpha") or {}, facts.get("gates") or {}, facts.get("accepted")
    text = ", ".join(f"{axis} {_figure(alphas.get(axis))} (gate {gate:g})" for axis, gate in gates.items())
    if accepted:
        text += f", accepted by {accepted['by']}: {accepted['reason']}"
    elif any(alphas.get(axis) is None or alphas[axis] < gate for axis, gate in gates.items()):
        raise Gap(f"agreement gate: {text}, and nobody accepted that")
    chain.add("agreement gate", text or "none was set")


def _candidates(chain: Chain, facts: dict[str, Any], campaign: Campaign) -> None:
    """Add the candidates of the campaign, and the run that made them if a stage did."""
    sha256 = str(facts.get("candidates_sha256"))
    if campaign.candidates_sha256 != sha256:
        raise Gap(f"candidates: campaign {campaign.key} asked about {campaign.candidates_sha256}, not {sha256}")
    tags = {"output.output": sha256}
    runs = tracking.find_runs(tags, stage="candidates", finished=True, limit=1)
    if not runs and (deleted := tracking.find_runs(tags, stage="candidates", deleted=True, limit=1)):
        raise Gap(f"candidates: run {deleted[0].info.run_id}, which made {sha256}, was deleted; restore it in MLflow")
    chain.add("candidates", f"{sha256} ({f'run {runs[0].info.run_id}' if runs else 'made outside the loop'})")
    if runs:
        edits_link(chain, runs[0])


def _figure(alpha: float | None) -> str:
    return "undefined" if alpha is None else f"{alpha:.3f}"
