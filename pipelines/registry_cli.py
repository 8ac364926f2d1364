"""`editloop promote`, `rollback` and `registry`: move the champion, undo that, and show who moved it."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipelines.environment import services_of
from pipelines.service_option import DEFAULT_SERVICES, Services

if TYPE_CHECKING:
    from editloop.lineage.registry import Promotion

Actor = Annotated[str, typer.Option(help="Who decides this; it stays on record.")]
Reason = Annotated[str, typer.Option(help="Why; it stays on record.")]
VERSION_TAGS = {"editloop.verdict": "verdict", "editloop.tainted": "tainted"}


def promote_command(
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
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Make a registered version the champion, and record who did, why and on what evidence.

    Its files and its signature are checked first, and its gate must have said "promote". Of two who promote at once,
    one wins and the other is told.

    For example: editloop promote edit-reward@challenger --actor ada@team.example --reason "better on hats"
    """
    from editloop.lineage.promotion import promote_version as move

    with services_of(services):
        record = move(
            _model_address(model),
            actor=actor,
            reason=reason,
            alias=to,
            replaces=replaces,
            without_evidence=without_evidence,
        )
    if (record.actor, record.reason) != (actor, reason):
        print("already so, nothing was changed:")
    print(_record_line(record))


def rollback_command(
    model: Annotated[str, typer.Argument(help="Name in the registry, such as edit-reward.")],
    actor: Actor,
    reason: Reason,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Make the champion before the champion again, by the records; a second call goes one further back."""
    from editloop.lineage.promotion import rollback_champion as move

    with services_of(services):
        record = move(_model_name(model), actor=actor, reason=reason)
    print(_record_line(record))


def registry_command(
    model: Annotated[str | None, typer.Argument(help="Name in the registry; without one, all of them.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Show versions, aliases, verdicts, and who moved the champion, when, why and on what evidence.

    An alias that was set by hand in MLflow is noticed here, and gets its record, without evidence.
    """
    from dataclasses import asdict
    from json import dumps

    from editloop.lineage.promotion import sync_registry_state
    from editloop.lineage.tracking import all_pages, client

    with services_of(services):
        registered = [] if model else all_pages(client().search_registered_models)
        names = [_model_name(model)] if model else sorted(each.name for each in registered)
        models = {}
        for name in names:
            state = sync_registry_state(name)
            models[name] = {
                "champion": state.champion or None,
                "versions": _versions(name),
                "records": [asdict(record) for record in state.records],
            }
    if json:
        print(dumps(models, indent=2, ensure_ascii=False))
        return
    if not models:
        print("the registry has no model; `editloop stage promote` puts one in")
    for name, facts in models.items():
        _print(name, facts)


def _model_address(model: str) -> str:
    """Return a model's full address: `edit-reward@challenger` may be written without `models:/`."""
    return model if model.startswith("models:/") else f"models:/{model}"


def _model_name(model: str) -> str:
    """Return the name in a name or an address."""
    return model.removeprefix("models:/").partition("@")[0].partition("/")[0]


def _record_line(record: "Promotion") -> str:
    """Return a promotion record as a line for the terminal."""
    from editloop.lineage.promotion_pages import promotion_sentence

    return f"{record.model}: {promotion_sentence(record)}"


def _versions(name: str) -> list[dict[str, Any]]:
    """Return a model's versions, newest first."""
    from editloop.lineage.tracking import all_pages, client, quoted

    api = client()
    aliases = api.get_registered_model(name).aliases
    query, order = f"name = {quoted(name)}", ["version_number DESC"]
    versions = all_pages(api.search_model_versions, query, order_by=order)
    return [
        {
            "version": str(model_version.version),
            "aliases": sorted(key for key, number in aliases.items() if str(number) == str(model_version.version)),
            "sha256": model_version.tags.get("editloop.sha256"),
            "run_id": model_version.run_id,
            **{word: model_version.tags.get(tag) for tag, word in VERSION_TAGS.items()},
        }
        for model_version in versions
    ]


def _print(name: str, facts: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from editloop.lineage.promotion_pages import evidence_words
    from editloop.terminal import text_console

    def table(title: str, head: list[str], rows: list[list[Any]]) -> None:
        rich_table = Table(title=title, title_justify="left")
        for word in head:
            rich_table.add_column(word, overflow="fold")
        for row in rows:
            rich_table.add_row(*(Text(str(value if value not in (None, "") else "—")) for value in row))
        text_console().print(rich_table)

    versions = [
        [row["version"], ", ".join(row["aliases"]), row["verdict"], row["tainted"], (row["sha256"] or "")[:12]]
        for row in facts["versions"]
    ]
    table(name, ["version", "aliases", "verdict", "tainted", "content"], versions)
    records = [
        [
            record["number"],
            record["at"][:16].replace("T", " "),
            f"{record['alias']}: {record['previous'] or 'none'} → {record['version'] or 'none'}",
            f"{record['actor']} ({record['action']})",
            record["reason"],
            evidence_words(record["evidence"]),
        ]
        for record in reversed(facts["records"])
    ]
    if records:
        table(f"{name}: promotions", ["no.", "when, UTC", "moved", "by", "why", "evidence"], records)
