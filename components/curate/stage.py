"""The curate stage: of a set of noisy edits those that the champion reward model scores best, as a version to learn
from."""

import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from editloop.content import read_manifest, sha256_json, write_json
from editloop.data.edits_stream import survey_edits
from editloop.datasets.repository import CuratedOrigin, DatasetVersion, commit_dataset
from editloop.datasets.settings import DatasetSettings
from editloop.errors import EditLoopError
from editloop.lineage.tracking import digest
from editloop.models.judge_protocol import Judge
from editloop.scoring.curation.curation import write_curated
from editloop.scoring.curation.settings import CurateSettings
from editloop.scoring.curation.triples import read_scored, score_triples
from editloop.work_dir import work_dir


def run_curate(
    edits: Path,
    output: Path,
    version: Path,
    *,
    judge: str = "models:/edit-reward@champion",
    order: str = "best",
    best: int = 0,
    threshold: float = 0.0,
    uncertainty: float = 0.0,
    most_missing: float = 0.1,
    seed: int = 0,
) -> dict[str, float]:
    """Score the edits of an edits folder, keep those that the settings say, and put them into the dataset repository.

    `edits`: its rows' candidates are the noisy edits; where no row has any, its targets are. `judge`: a registered
    reward model, or one that is served, whose version the registry knows. `order`: best, or random (the control).
    `best`: how many to keep, 0 for all; `threshold`: the lowest score to keep, 0 for none; `uncertainty`: how many
    standard deviations are taken off each score. `output` becomes an edits folder, a row a kept edit as its target,
    with `curation.json` and `page.html`; `version` is a JSON file that says where DVC has it.

    Scores are kept beside the output until it is done: a stopped call goes on. Raises EditLoopError for settings that
    contradict each other and a judge that is not registered, before anything is scored.
    """
    from editloop.scoring.opening import open_judge

    settings = curate_settings(order=order, best=best, threshold=threshold or None, uncertainty=uncertainty, seed=seed)
    repo, remote = (DatasetSettings().require(f"dataset_{name}") for name in ("repo", "remote"))
    opened = open_judge(judge)
    name = registered_name(opened, judge)
    scores_dir = work_dir(output) / f"curate-{sha256_json([survey_edits(edits).sha256, opened.version])[:16]}"
    summary = score_triples(opened, edits, scores_dir / "scores.parquet", most_missing=most_missing)
    scored = read_scored(edits, scores_dir / "scores.parquet")
    facts = {"edits_sha256": digest(edits), "reward_sha256": opened.version, "judge": name}
    report = write_curated(scored, settings, output, facts)
    write_json(version, publish_curated(output, repo, remote))
    shutil.rmtree(scores_dir)
    metric_names = ("edits", "kept", "mean_all", "mean_kept", "lowest_kept")
    return {"missing": summary.missing, **{name: float(report[name]) for name in metric_names}}


def curate_settings(**choices: Any) -> CurateSettings:
    """The settings as told. EditLoopError where they cannot be."""
    try:
        return CurateSettings(**choices)
    except ValidationError as error:
        wrong = "; ".join(".".join(map(str, (*fault["loc"], fault["msg"]))) for fault in error.errors())
        raise EditLoopError(f"curate: {wrong}.") from None


def registered_name(judge: Judge, address: str) -> str:
    """The name that the registry has a judge by. EditLoopError where it has no version with its content, or its
    signature does not hold: nothing that learns from its choice could be traced to the people who taught it."""
    from editloop.lineage.registry import fetch_version, find_version_by_sha256, parse_model

    name = parse_model(address)[0] if address.startswith("models:/") else judge.name
    version = find_version_by_sha256(name, judge.version)
    if version is None:
        raise EditLoopError(
            f"judge {address}: {name} {judge.version[:12]} is no version in the registry, so an editor that learns "
            "from what it chooses could not be registered. Promote it first, or give models:/NAME@champion."
        )
    fetch_version(version)
    return name


def publish_curated(folder: Path, repo: str, remote: str) -> DatasetVersion:
    """Put a folder of curated edits into the dataset repository; the same content again adds nothing."""
    facts = read_manifest(folder)["facts"]
    origin = CuratedOrigin(
        task_ids=tuple(facts["task_ids"]),
        images=tuple(facts["images"]),
        edits_sha256=facts["edits_sha256"],
        reward_sha256=facts["reward_sha256"],
    )
    return commit_dataset(
        folder, repo=repo, remote=remote, message=f"{facts['kept']} edits to learn from", origin=origin
    )
