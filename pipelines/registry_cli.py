"""`editloop promote`, `rollback` and `registry`: who is champion, on whose word, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipelines.surroundings import services_of

if TYPE_CHECKING:
    from infra.registry import Promotion

Actor = Annotated[str, typer.Option(help="Who decides this; it stays on record.")]
Reason = Annotated[str, typer.Option(help="Why; it stays on record.")]
Home = Annotated[
    Path, typer.Option("--out", help="Where MLFLOW_TRACKING_URI is not set: folder of the demo whose MLflow is meant.")
]
DEFAULT_OUT = Path("runs/demo")
WORDS = {"editloop.verdict": "verdict", "editloop.tainted": "tainted"}


def promote(
    model: Annotated[str, typer.Argument(help="models:/NAME/VERSION or NAME@challenger.")],
    actor: Actor,
    reason: Reason,
    to: Annotated[Literal["champion", "challenger"], typer.Option(help="The alias to move.")] = "champion",
    replaces: Annotated[
        str | None, typer.Option(help="Version that you mean to replace; refused where it is another by now.")
    ] = None,
    without_evidence: Annotated[
        bool, typer.Option("--without-evidence", help="Promote what no gate promoted; the record keeps that.")
    ] = False,
    out: Home = DEFAULT_OUT,
) -> None:
    """Make a registered version the champion, and record who did, why and on what evidence.

    Its files and its signature are checked first, and its gate must have said "promote". Of two who promote at once,
    one wins and the other is told.

    For example: editloop promote edit-reward@challenger --actor ada@team.example --reason "better on hats"
    """
    from infra.promotion import promote as move

    with services_of(out):
        record = move(
            address(model), actor=actor, reason=reason, alias=to, replaces=replaces, without_evidence=without_evidence
        )
    if (record.actor, record.reason) != (actor, reason):
        print("already so, nothing was changed:")
    print(told(record))


def rollback(
    model: Annotated[str, typer.Argument(help="Name in the registry, such as edit-reward.")],
    actor: Actor,
    reason: Reason,
    out: Home = DEFAULT_OUT,
) -> None:
    """Make the champion before the champion again, by the records; a second call goes one further back."""
    from infra.promotion import rollback as move

    with services_of(out):
        record = move(name_of(model), actor=actor, reason=reason)
    print(told(record))


def registry(
    model: Annotated[str | None, typer.Argument(help="Name in the registry; without one, all of them.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
    out: Home = DEFAULT_OUT,
) -> None:
    """Show versions, aliases, verdicts, and who moved the champion, when, why and on what evidence.

    An alias that was set by hand in MLflow is noticed here, and gets its record, without evidence.
    """
    from dataclasses import asdict
    from json import dumps

    from infra.promotion import notice
    from infra.tracking import client

    with services_of(out):
        names = [name_of(model)] if model else sorted(one.name for one in client().search_registered_models())
        found = {}
        for name in names:
            standing = notice(name)
            found[name] = {
                "champion": standing.champion or None,
                "versions": _versions(name),
                "records": [asdict(record) for record in standing.records],
            }
    if json:
        print(dumps(found, indent=2, ensure_ascii=False))
        return
    if not found:
        print("the registry has no model; `editloop stage promote` puts one in")
    for name, one in found.items():
        _print(name, one)


def address(model: str) -> str:
    """A model's address in full: `edit-reward@challenger` may be written without `models:/`."""
    return model if model.startswith("models:/") else f"models:/{model}"


def name_of(model: str) -> str:
    """The name in a name or an address."""
    return model.removeprefix("models:/").partition("@")[0].partition("/")[0]


def told(record: "Promotion") -> str:
    """A record as the terminal shows it."""
    from infra.promotion_pages import sentence

    return f"{record.model}: {sentence(record)}"


def _versions(name: str) -> list[dict[str, Any]]:
    """A model's versions, the newest first."""
    from infra.tracking import client, quoted

    api = client()
    aliases: dict[str, list[str]] = {}
    for alias, version in api.get_registered_model(name).aliases.items():
        aliases.setdefault(str(version), []).append(alias)
    found = api.search_model_versions(f"name = {quoted(name)}", order_by=["version_number DESC"])
    return [
        {
            "version": str(one.version),
            "aliases": sorted(aliases.get(str(one.version), [])),
            "sha256": one.tags.get("editloop.sha256"),
            "run_id": one.run_id,
            **{word: one.tags.get(tag) for tag, word in WORDS.items()},
        }
        for one in found
    ]


def _print(name: str, found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from infra.promotion_pages import evidence_words

    def table(title: str, head: list[str], rows: list[list[Any]]) -> None:
        made = Table(title=title, title_justify="left")
        for word in head:
            made.add_column(word, overflow="fold")
        for row in rows:
            made.add_row(*(Text(str(value if value not in (None, "") else "—")) for value in row))
        Console().print(made)

    versions = [
        [one["version"], ", ".join(one["aliases"]), one["verdict"], one["tainted"], (one["sha256"] or "")[:12]]
        for one in found["versions"]
    ]
    table(name, ["version", "aliases", "verdict", "tainted", "content"], versions)
    records = [
        [
            one["number"],
            one["at"][:16].replace("T", " "),
            f"{one['alias']}: {one['previous'] or 'none'} → {one['version'] or 'none'}",
            f"{one['actor']} ({one['action']})",
            one["reason"],
            evidence_words(one["evidence"]),
        ]
        for one in reversed(found["records"])
    ]
    if records:
        table(f"{name}: promotions", ["no.", "when, UTC", "moved", "by", "why", "evidence"], records)
