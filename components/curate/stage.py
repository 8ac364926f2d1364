"""The curate stage: keep the edits of a noisy set that the champion reward model scores best, as a new version of the
training data.
"""

import shutil
from pathlib import Path

from components.curate.declaration import CurateParameters
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
from editloop.settings_file import validate_settings
from editloop.work_dir import work_dir


def run_curate(edits: Path, output: Path, version: Path, parameters: CurateParameters) -> dict[str, float]:
    """Score the edits of an edits folder, keep those that the parameters select, and commit them as a dataset version.

    Scores are kept in the work folder until the output is complete, so that a stopped call resumes.

    Args:
        edits: Edits folder. Its rows' candidates are the noisy edits; where no row has any, its targets are.
        output: Edits folder to write, with one row per kept edit (as its target), `curation.json` and `page.html`.
        version: JSON file to write: the version in the dataset repository.
        parameters: The stage's parameters.

    Returns:
        The numbers of `missing` scores, of all `edits` and of `kept` ones, and the scores `mean_all`, `mean_kept` and
        `lowest_kept`.

    Raises:
        EditLoopError: The parameters contradict each other or the judge is not registered (nothing is scored then), or
            too many scores are missing.
    """
    from editloop.scoring.opening import open_judge

    choices = parameters.model_dump(include=set(CurateSettings.model_fields))
    choices["threshold"] = parameters.threshold or None
    settings = validate_settings(CurateSettings, choices, "curate", "`editloop stage curate --help` explains.")
    repo, remote = (DatasetSettings().require(f"dataset_{name}") for name in ("repo", "remote"))
    opened = open_judge(parameters.judge)
    name = registered_name(opened, parameters.judge)
    scores_dir = work_dir(output) / f"curate-{sha256_json([survey_edits(edits).sha256, opened.version])[:16]}"
    summary = score_triples(opened, edits, scores_dir / "scores.parquet", most_missing=parameters.most_missing)
    scored = read_scored(edits, scores_dir / "scores.parquet")
    facts = {"edits_sha256": digest(edits), "reward_sha256": opened.version, "judge": name}
    report = write_curated(scored, settings, output, facts)
    write_json(version, publish_curated(output, repo, remote))
    shutil.rmtree(scores_dir)
    metric_names = ("edits", "kept", "mean_all", "mean_kept", "lowest_kept")
    return {"missing": summary.missing, **{name: float(report[name]) for name in metric_names}}


def registered_name(judge: Judge, address: str) -> str:
    """Return the name that a judge is registered under, after checking its content and signature.

    An editor that learns from the choices of an unregistered judge could not be traced to the annotators.

    Args:
        judge: The judge.
        address: Address that it was opened by.

    Raises:
        EditLoopError: The registry has no version with its content, or the signature is not valid.
    """
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
    """Commit a folder of curated edits to the dataset repository. Content that is there already adds nothing.

    Args:
        folder: The folder, as `write_curated` wrote it.
        repo: Folder or git address of the repository.
        remote: DVC remote of the repository.

    Returns:
        The version.

    Raises:
        EditLoopError: git or DVC refuses.
    """
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
