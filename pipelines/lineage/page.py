"""Traces and withdrawals for people: tables in the terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from infra.dataset_versions import VersionLineage
from pipelines.lineage.family import Heir
from pipelines.lineage.trace import Trace
from pipelines.lineage.withdraw import Taken


def show_trace(trace: Trace) -> None:
    """What it came from, then what came of it."""
    console = Console()
    console.print(f"{trace.kind} {trace.name}", markup=False, highlight=False)
    origin = {key: value for key, value in trace.came_from.items() if value}
    for key, value in origin.items():
        console.print(f"  came from {key}: {_told(value)}", markup=False, highlight=False)
    _datasets(console, "Datasets that came of it", trace.datasets)
    if trace.curated:
        _datasets(console, "Curated edits that such a model chose", trace.curated)
    _models(console, "Models that learnt from it", trace.models)


def show_withdrawal(taken: Taken) -> None:
    """The new versions, the models that are tainted, and what to do next."""
    console, said = Console(), taken.withdrawal
    console.print(f"{said.kind} {said.name} is withdrawn since {said.at:%Y-%m-%d}", markup=False, highlight=False)
    _datasets(console, "Versions that have it, and stay", taken.held)
    for parent, version, folder in taken.made:
        console.print(
            f"new version {version['tag']} without it, of {parent.tag}: {folder}", markup=False, soft_wrap=True
        )
    for parent, reason in taken.empty:
        console.print(f"no new version of {parent.tag}: nothing to learn from is left ({reason})", markup=False)
    if taken.curated:
        _datasets(console, "Curated edits that a tainted model chose: curate them anew", taken.curated)
    _models(console, "Tainted models", taken.tainted)
    aliased = [f"{one.model.address} is {', '.join(one.model.aliases)}" for one in taken.tainted if one.model.aliases]
    if aliased:
        console.print(
            f"In use: {'; '.join(aliased)}. Train anew on the new version (`editloop stage reward --dataset ...`), "
            "gate and promote; until then `editloop rollback` goes back to an earlier champion.",
            markup=False,
        )


def _datasets(console: Console, title: str, found: Sequence[VersionLineage]) -> None:
    if not found:
        console.print(f"{title}: none")
        return
    table = Table(title=f"{title}: {len(found)}", title_justify="left")
    for heading in ("tag", "made", "commit", "annotators"):
        table.add_column(heading, overflow="fold")
    for one in found:
        made = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%M")
        table.add_row(one.tag, made, one.dvc_rev[:12], "" if one.annotators is None else str(len(one.annotators)))
    console.print(table)


def _models(console: Console, title: str, found: Sequence[Heir]) -> None:
    if not found:
        console.print(f"{title}: none")
        return
    table = Table(title=f"{title}: {len(found)}", title_justify="left")
    for heading in ("model", "aliases", "because", "tainted"):
        table.add_column(heading, no_wrap=heading == "model", overflow="fold")
    for one in found:
        name = f"{one.model.name} {one.model.version}"
        table.add_row(name, ", ".join(one.model.aliases), one.because, one.model.tainted)
    console.print(table)


def _told(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    rows = [
        f"{one['name']} {one['version']}" if "version" in one else one["tag"] for one in value if isinstance(one, dict)
    ]
    return ", ".join(rows or map(str, value))
