"""Withdrawal: what somebody takes back leaves the dataset, and the models that learnt from it are named.

Versions and models made before stay: whoever must delete them knows from here which they are.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track

from components.dataset.stage import publish, rebuild_dataset
from components.dataset.withdrawal import Withdrawal, add_withdrawal, read_withdrawn
from infra import tracking
from infra.content import read_manifest, write_json
from infra.datarepo import Version, fetch_dataset
from infra.dataset_versions import VersionLineage
from infra.errors import EditLoopError
from infra.settings import service_settings
from pipelines.lineage.family import TAINTED, Heir
from pipelines.lineage.trace import dataset_row, model_row, trace_annotator, trace_task


@dataclass
class Taken:
    """What a withdrawal did."""

    withdrawal: Withdrawal
    held: list[VersionLineage]
    """The versions that have what is withdrawn, the oldest first."""
    tainted: list[Heir]
    """The models that learnt from one of them, by way of others too."""
    curated: list[VersionLineage] = field(default_factory=list)
    """The versions of curated edits that a tainted model chose."""
    made: list[tuple[VersionLineage, Version, Path]] = field(default_factory=list)
    """The version that was rebuilt, the one without it, and its folder."""
    empty: list[tuple[VersionLineage, str]] = field(default_factory=list)
    """Versions of which nothing to learn from is left, and why."""

    def summary(self) -> dict[str, Any]:
        """{"withdrawn", "versions" made, "empty", "held", "curated", "tainted"} for programs."""
        return {
            "withdrawn": self.withdrawal.model_dump(mode="json"),
            "versions": [
                {"parent": parent.tag, "folder": str(folder), **version} for parent, version, folder in self.made
            ],
            "empty": [{"parent": parent.tag, "reason": reason} for parent, reason in self.empty],
            "held": [dataset_row(one) for one in self.held],
            "curated": [dataset_row(one) for one in self.curated],
            "tainted": [model_row(one.model) | {"because": one.because} for one in self.tainted],
        }


def withdraw(kind: Literal["annotator", "task"], name: str, reason: str, out: Path) -> Taken:
    """Take an annotator's ratings, or a task, out of the dataset.

    They go on the dataset repository's list, which later builds honour. Of each set of candidates the latest version
    that has them is rebuilt without them, into `out`/TAG (the dataset) and `out`/TAG.json (where DVC has it, as the
    dataset stage writes it). The models that learnt from any version with them get the tag `editloop.tainted` in the
    registry. Safe to repeat: what is done already stays as it is.

    Raises EditLoopError where no version has them; nothing is listed then.
    """
    repo = service_settings().require("dataset_repo")
    trace = trace_annotator(name) if kind == "annotator" else trace_task(name)
    listed = add_withdrawal(
        repo, Withdrawal(kind=kind, name=name, reason=reason, at=datetime.now(UTC).replace(microsecond=0))
    )
    taken = Taken(listed, trace.datasets, trace.models, trace.curated)
    _mark(taken)
    for one in track(latest(trace.datasets), description="datasets", transient=True, console=Console(stderr=True)):
        _rebuild(taken, one, repo, out)
    return taken


def latest(held: Sequence[VersionLineage]) -> list[VersionLineage]:
    """The newest of the versions of each set of candidates, the oldest first."""
    found = {one.candidates_sha256: one for one in sorted(held, key=lambda one: one.at)}
    return sorted(found.values(), key=lambda one: one.at)


def _mark(taken: Taken) -> None:
    """Tag the tainted versions in the registry, each reason once."""
    api, said = tracking.client(), taken.withdrawal
    for heir in taken.tainted:
        why = f"{said.kind} {said.name}, withdrawn {said.at:%Y-%m-%d}: {heir.because}"
        if why not in heir.model.tainted:
            text = "; ".join(filter(None, (heir.model.tainted, why)))[:5000]
            api.set_model_version_tag(heir.model.name, heir.model.version, TAINTED, text)


def _rebuild(taken: Taken, one: VersionLineage, repo: str, out: Path) -> None:
    """Make the version without it, recorded in MLflow as a step of its own."""
    with tempfile.TemporaryDirectory(prefix="editloop-withdrawal-") as temporary:
        earlier, rebuilt = Path(temporary) / "earlier", Path(temporary) / "dataset"
        fetch_dataset(Version(dvc_rev=one.dvc_rev, tag=one.tag, sha256=one.sha256, repo=repo), earlier)
        withdrawn = read_withdrawn(repo)
        parameters = {"withdrawn": len(withdrawn.annotators) + len(withdrawn.tasks)}
        try:
            figures = rebuild_dataset(earlier, rebuilt, withdrawn=withdrawn)
        except EditLoopError as error:
            taken.empty.append((one, str(error)))
            return
        with tracking.stage_run(
            "dataset", "train-reward", f"withdrawal-{one.tag}", {"dataset": earlier}, parameters
        ) as run:
            version = publish(rebuilt)
            run.finish(figures, {"output": rebuilt})
        folder = out / version["tag"]
        if not folder.exists():
            fetch_dataset(version, folder)
        read_manifest(folder, check=True)
        write_json(out / f"{version['tag']}.json", version)
        taken.made.append((one, version, folder))
