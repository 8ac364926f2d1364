"""Checks lineage: from a registered model back to the people, or the published files, whose judgements it learnt from.

Each link is looked up where it is kept (registry, runs, dataset repository) and compared by content.
"""

from typing import TYPE_CHECKING, Any, Protocol

from editloop.datasets.votes import Votes
from editloop.lineage import registry
from editloop.lineage.chain import Chain, Gap, look_up
from editloop.lineage.data_links import curated_links, dataset_links, edits_link, is_taught, taught_links
from editloop.lineage.model_links import (
    content_link,
    evidence_links,
    independent_link,
    promotion_link,
    run_links,
    version_link,
)
from editloop.lineage.registration import EDITOR_STAGES
from editloop.lineage.registry import TAINTED

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


class JudgementLinks(Protocol):
    """Follows a dataset's judgements to the people who gave them."""

    def __call__(self, chain: Chain, facts: dict[str, Any], votes: Votes | None = None) -> None:
        """Add the links.

        Args:
            chain: The chain to extend.
            facts: Facts of the dataset's manifest.
            votes: The dataset's votes.

        Raises:
            Gap: A link is missing or does not hold.
        """


def named_annotators(chain: Chain, facts: dict[str, Any], votes: Votes | None = None) -> None:
    """End the chain at the judgements and the annotators that a dataset names, without asking Label Studio.

    Args:
        chain: The chain to extend.
        facts: Facts of the dataset's manifest.
        votes: The dataset's votes.

    Raises:
        Gap: The dataset names no annotators.
    """
    chain.add("judgements", f"{facts.get('judgements_sha256')} (not followed into Label Studio)")
    if not facts.get("annotators"):
        raise Gap("annotators: the dataset names none")
    chain.add("annotators", ", ".join(facts["annotators"]))


def verify_lineage(model: str, judgement_links: JudgementLinks = named_annotators) -> Chain:
    """Follow the chain of a registered reward model or editor as far as it holds.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        judgement_links: What follows the judgements; without one the chain ends at the annotators that the dataset
            names. `annotation.lineage_links.judgement_links` asks Label Studio.

    Returns:
        The chain; `gap` says where it ends before the annotators, or before the published files of a teacher's rows.

    Examples:
        >>> import editloop
        >>> chain = editloop.verify_lineage("models:/edit-reward@champion")  # doctest: +SKIP
        >>> chain.gap or [link["name"] for link in chain.links][-1]  # doctest: +SKIP
        'annotators'
    """
    chain = Chain(model)
    try:
        _walk(chain, model, judgement_links)
    except Gap as gap:
        chain.gap = str(gap)
    return chain


def _walk(chain: Chain, model: str, judgement_links: JudgementLinks) -> None:
    version = version_link(chain, model)
    record = promotion_link(chain, model, version)
    sha256 = content_link(chain, version)
    if tainted := version.tags.get(TAINTED):
        chain.add("tainted", tainted, warning=True)
    run = run_links(chain, version, sha256)
    tags = run.data.tags
    if tags["editloop.stage"] in EDITOR_STAGES:
        tuned = str(tags.get("editloop.output.output"))
        gate = evidence_links(chain, version, record, "editor_eval", "evaluation_sha256", editor=tuned)
        independent_link(chain, gate)
        if tags["editloop.stage"] == "editor_rl":
            edits_link(chain, run)
        if tags["editloop.stage"] != "editor_dpo":
            _walk(chain, _reward_link(chain, version, run), judgement_links)
            return
    else:
        evidence_links(chain, version, record, "benchmark", "benchmark_sha256", model=sha256)
    if is_taught(version):
        taught_links(chain, version, run)
        return
    facts, votes = dataset_links(chain, version, run)
    judgement_links(chain, facts, votes)


def _reward_link(chain: Chain, version: "ModelVersion", run: "Run") -> str:
    """Add the reward model that taught an editor, with the edits that it chose where it chose any; return its address.

    Raises:
        Gap: A link is missing or does not hold.
    """
    curated = run.data.tags["editloop.stage"] == "editor_sft"
    taught_by = curated_links(chain, version, run) if curated else run.data.tags.get("editloop.reward_sha256")
    reward = str(version.tags.get("editloop.reward", ""))
    teacher = look_up("reward model", lambda: registry.find_version(reward)) if reward else None
    if teacher is None or teacher.tags.get("editloop.sha256") != taught_by:
        raise Gap(f"reward model: run {run.info.run_id} learnt from {taught_by}, which is not {reward or 'named'}")
    chain.add("reward model", f"{reward} ({taught_by})")
    return reward
