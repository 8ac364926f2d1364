"""Traces and withdrawals as tables in the terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from editloop.datasets.versions import VersionLineage
from editloop.lineage.family import Descendant
from editloop.lineage.trace import LineageTrace
from editloop.lineage.withdraw import WithdrawalReport
from editloop.terminal import text_console


def show_trace(trace: LineageTrace) -> None:
    """Print a trace: its origins, then the datasets and models made from it.

    Args:
        trace: The trace.
    """
    console = text_console()
    console.print(f"{trace.kind} {trace.name}", highlight=False)
    origin = {key: value for key, value in trace.came_from.items() if value}
    for key, value in origin.items():
        console.print(f"  came from {key}: {_value_text(value)}", highlight=False)
    _show_datasets(console, "Datasets that came of it", trace.datasets)
    if trace.curated:
        _show_datasets(console, "Curated edits that such a model chose", trace.curated)
    _show_models(console, "Models that learnt from it", trace.models)


def show_withdrawal(report: WithdrawalReport) -> None:
    """Print a withdrawal: the new versions, the tainted models, and what to do next.

    Args:
        report: Result of the withdrawal.
    """
    console, withdrawal = text_console(), report.withdrawal
    heading = f"{withdrawal.kind} {withdrawal.name} is withdrawn since {withdrawal.at:%Y-%m-%d}"
    console.print(heading, highlight=False)
    _show_datasets(console, "Versions that have it, and stay", report.held)
    for parent, version, folder in report.rebuilt:
        console.print(f"new version {version['tag']} without it, of {parent.tag}: {folder}", soft_wrap=True)
    for parent, reason in report.empty:
        console.print(f"no new version of {parent.tag}: nothing to learn from is left ({reason})")
    if report.curated:
        _show_datasets(console, "Curated edits that a tainted model chose: curate them anew", report.curated)
    _show_models(console, "Tainted models", report.tainted)
    models = [descendant.model for descendant in report.tainted]
    aliased = [f"{model.address} is {', '.join(model.aliases)}" for model in models if model.aliases]
    if aliased:
        console.print(
            f"In use: {'; '.join(aliased)}. Train anew on the new version (`editloop stage reward --dataset ...`), "
            "gate and promote; until then `editloop rollback` goes back to an earlier champion.",
        )


def _show_datasets(console: Console, title: str, versions: Sequence[VersionLineage]) -> None:
    rows = [
        (
            version.tag,
            f"{datetime.fromtimestamp(version.at, UTC):%Y-%m-%d %H:%M}",
            version.dvc_rev[:12],
            "" if version.annotators is None else str(len(version.annotators)),
        )
        for version in versions
    ]
    _show_rows(console, title, ("tag", "made", "commit", "annotators"), rows)


def _show_models(console: Console, title: str, descendants: Sequence[Descendant]) -> None:
    models = [(descendant.model, descendant.because) for descendant in descendants]
    rows = [(f"{model.name} {model.version}", ", ".join(model.aliases), why, model.tainted) for model, why in models]
    _show_rows(console, title, ("model", "aliases", "because", "tainted"), rows)


def _show_rows(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        console.print(f"{title}: none")
        return
    table = Table(title=f"{title}: {len(rows)}", title_justify="left")
    for heading in headings:
        table.add_column(heading, no_wrap=heading == "model", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _value_text(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    rows = [
        f"{row['name']} {row['version']}" if "version" in row else row["tag"] for row in value if isinstance(row, dict)
    ]
    return ", ".join(rows or map(str, value))
