"""Withdrawal: remove an annotator's ratings or a task from the dataset, and mark the models that learnt from them.

Earlier versions and models are kept. The report lists them for those who must delete them.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from editloop.content import read_manifest, write_json
from editloop.datasets.build import NoPairsError, publish_dataset, rebuild_dataset
from editloop.datasets.repository import DatasetVersion, fetch_dataset
from editloop.datasets.settings import DatasetSettings
from editloop.datasets.versions import VersionLineage
from editloop.datasets.withdrawal import Withdrawal, add_withdrawal, read_withdrawn
from editloop.lineage import tracking
from editloop.lineage.family import Descendant
from editloop.lineage.registry import TAINTED
from editloop.lineage.trace import dataset_row, descendant_rows, trace_annotator, trace_task
from editloop.progress import track


@dataclass
class WithdrawalReport:
    """Result of one withdrawal."""

    withdrawal: Withdrawal
    held: list[VersionLineage]
    """Dataset versions that contain what was withdrawn, oldest first."""
    tainted: list[Descendant]
    """Models that learnt from one of them, directly or through other models."""
    curated: list[VersionLineage] = field(default_factory=list)
    """Versions of curated edits that a tainted model chose."""
    rebuilt: list[tuple[VersionLineage, DatasetVersion, Path]] = field(default_factory=list)
    """Each version that was rebuilt, with the new version and the new version's folder."""
    empty: list[tuple[VersionLineage, str]] = field(default_factory=list)
    """Versions that could not be rebuilt because too little is left, each with the error's message."""

    def summary(self) -> dict[str, Any]:
        """Return the report as JSON data.

        Returns:
            {"withdrawn", "versions", "empty", "held", "curated", "tainted"}; "versions" are the new ones.
        """
        return {
            "withdrawn": self.withdrawal.model_dump(mode="json"),
            "versions": [
                {"parent": parent.tag, "folder": str(folder), **version} for parent, version, folder in self.rebuilt
            ],
            "empty": [{"parent": parent.tag, "reason": reason} for parent, reason in self.empty],
            "held": [dataset_row(version) for version in self.held],
            "curated": [dataset_row(version) for version in self.curated],
            "tainted": descendant_rows(self.tainted),
        }


def withdraw(kind: Literal["annotator", "task"], name: str, reason: str, out: Path) -> WithdrawalReport:
    """Remove an annotator's ratings, or a task, from the dataset.

    The withdrawal goes on the dataset repository's list, which later builds obey. For each set of candidates, the
    newest version that contains it is rebuilt without it, into `out`/TAG, with the version's address in `out`/TAG.json
    (as the dataset stage writes it). Models that learnt from any version that contains it get the tag
    `editloop.tainted`. Repeating a withdrawal is safe.

    Args:
        kind: What is withdrawn.
        name: The annotator's name or the task's id.
        reason: Why; it is kept on the list.
        out: Folder for the new versions.

    Raises:
        EditLoopError: No version of the dataset contains it, and nothing is listed then. Or a version cannot be
            fetched, rebuilt or published.
    """
    repo = DatasetSettings().require("dataset_repo")
    trace = trace_annotator(name) if kind == "annotator" else trace_task(name)
    listed = add_withdrawal(
        repo, Withdrawal(kind=kind, name=name, reason=reason, at=datetime.now(UTC).replace(microsecond=0))
    )
    report = WithdrawalReport(listed, trace.datasets, trace.models, trace.curated)
    _mark(report)
    for version in track(newest_versions(trace.datasets), "datasets"):
        _rebuild(report, version, repo, out)
    return report


def newest_versions(held: Sequence[VersionLineage]) -> list[VersionLineage]:
    """Return the newest version of each set of candidates, oldest first.

    Args:
        held: Dataset versions, in any order.
    """
    newest = {version.candidates_sha256: version for version in sorted(held, key=lambda version: version.at)}
    return sorted(newest.values(), key=lambda version: version.at)


def _mark(report: WithdrawalReport) -> None:
    """Add this withdrawal to the tag TAINTED of each tainted version, unless the tag has it already."""
    api, withdrawal = tracking.client(), report.withdrawal
    for descendant in report.tainted:
        why = f"{withdrawal.kind} {withdrawal.name}, withdrawn {withdrawal.at:%Y-%m-%d}: {descendant.because}"
        if why not in descendant.model.tainted:
            text = "; ".join(filter(None, (descendant.model.tainted, why)))[:5000]
            api.set_model_version_tag(descendant.model.name, descendant.model.version, TAINTED, text)


def _rebuild(report: WithdrawalReport, parent: VersionLineage, repo: str, out: Path) -> None:
    """Publish a new version without what was withdrawn, recorded in MLflow as a step of its own."""
    with tempfile.TemporaryDirectory(prefix="editloop-withdrawal-") as temporary:
        earlier, rebuilt = Path(temporary) / "earlier", Path(temporary) / "dataset"
        fetch_dataset(DatasetVersion(dvc_rev=parent.dvc_rev, tag=parent.tag, sha256=parent.sha256, repo=repo), earlier)
        withdrawn = read_withdrawn(repo)
        parameters = {"withdrawn": len(withdrawn.annotators) + len(withdrawn.tasks)}
        try:
            figures = rebuild_dataset(earlier, rebuilt, withdrawn=withdrawn)
        except NoPairsError as error:
            report.empty.append((parent, str(error)))
            return
        name = f"withdrawal-{parent.tag}"
        with tracking.stage_run("dataset", "train-reward", name, {"dataset": earlier}, parameters) as run:
            version = publish_dataset(rebuilt)
            run.finish(figures, {"output": rebuilt})
        folder = out / version["tag"]
        if not folder.exists():
            fetch_dataset(version, folder)
        read_manifest(folder, check=True)
        write_json(out / f"{version['tag']}.json", version)
        report.rebuilt.append((parent, version, folder))
