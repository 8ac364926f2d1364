"""Lineage, checked: from a registered model back to the people whose judgements it learnt from.

    editloop verify models:/edit-reward@champion
    editloop verify models:/editor@champion

Each link is looked up where it lives (registry, runs, dataset repository, Label Studio) and compared by content.
"""

from annotation.lineage_links import curated_links, dataset_links, judgement_links
from editloop.lineage import registry
from editloop.lineage.chain import Chain, Gap, look_up
from editloop.lineage.family import TAINTED
from editloop.lineage.model_links import (
    content_link,
    evidence_links,
    independent_link,
    promotion_link,
    run_links,
    version_link,
)
from editloop.lineage.registration import EDITOR_STAGES


def verify(model: str) -> Chain:
    """Walk the chain of a registered reward model or editor as far as it holds."""
    chain = Chain(model)
    try:
        _walk(chain, model)
    except Gap as gap:
        chain.gap = str(gap)
    return chain


def _walk(chain: Chain, model: str) -> None:
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
        curated = tags["editloop.stage"] == "editor_sft"
        taught_by = curated_links(chain, version, run) if curated else tags.get("editloop.reward_sha256")
        reward = version.tags.get("editloop.reward", "")
        teacher = look_up("reward model", lambda: registry.find_version(reward)) if reward else None
        if teacher is None or teacher.tags.get("editloop.sha256") != taught_by:
            raise Gap(f"reward model: run {run.info.run_id} learnt from {taught_by}, which is not {reward or 'named'}")
        chain.add("reward model", f"{reward} ({taught_by})")
        _walk(chain, reward)
        return
    evidence_links(chain, version, record, "benchmark", "benchmark_sha256", model=sha256)
    facts, votes = dataset_links(chain, version, run)
    judgement_links(chain, facts, votes)
