"""The promotion records as MLflow's own pages show them: a table on the model's page, tags on its versions' pages."""

from typing import Any

from editloop.lineage.registry import Promotion

HEADING = "## Promotions"
MAX_DESCRIPTION = 5000
"""Characters of a description, at most: MLflow's limit."""
CELL = 120
"""Characters of a table's cell, at most; the record itself has the whole text."""


def write_promotion_pages(api: Any, name: str, records: list[Promotion]) -> None:
    """Write the records into the model's description, below what people wrote there, and tag the versions concerned."""
    last = records[-1]
    written = (api.get_registered_model(name).description or "").partition(HEADING)[0].strip()
    table = promotion_table(records, MAX_DESCRIPTION - len(written) - 2)
    api.update_registered_model(name, "\n\n".join(part for part in (written, table) if part))
    if last.version:
        api.set_model_version_tag(name, last.version, "editloop.promotion", promotion_sentence(last))
    if last.previous and last.previous != last.version:
        _tag_if_there(api, name, last.previous, f"no longer {last.alias}. {promotion_sentence(last)}")


def promotion_table(records: list[Promotion], longest: int) -> str:
    """Markdown: the records, the newest first, as many as `longest` characters hold."""
    lines = [
        HEADING,
        "",
        "| no. | when | alias | now | before | how | who | why | verdict | evidence |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in reversed(records):
        cells = (
            str(record.number),
            promotion_time(record),
            record.alias,
            record.version or "none",
            record.previous or "none",
            record.action,
            record.actor,
            record.reason,
            record.verdict or "none",
            evidence_words(record.evidence),
        )
        lines.append("| " + " | ".join(markdown_cell(_shortened(text)) for text in cells) + " |")
        if len("\n".join(lines)) > longest:
            return "\n".join(lines[:-1])
    return "\n".join(lines)


def promotion_sentence(record: Promotion) -> str:
    """A record as one sentence."""
    now = f"version {record.version}" if record.version else "no version"
    before = f"version {record.previous}" if record.previous else "none"
    return (
        f"Record {record.number}, {promotion_time(record)}: {record.alias} is {now} ({record.action} by "
        f"{record.actor}: "
        f"{record.reason}). Before: {before}. Evidence: {evidence_words(record.evidence)}."
    )


def promotion_time(record: Promotion) -> str:
    """When a record was made, to the second, for people."""
    return record.at[:19].replace("T", " ") + " UTC"


def evidence_words(evidence: dict[str, str]) -> str:
    """Evidence by the first 12 characters of its sha256, or "none"."""
    return ", ".join(f"{key.removesuffix('_sha256')} {value[:12]}" for key, value in evidence.items()) or "none"


def markdown_cell(text: str) -> str:
    """Text as it stands in Markdown, also in a cell of a table: no mark-up of its own, no bar, no line break."""
    escaped = "".join(f"\\{sign}" if sign in "\\`*_[]<>|#!" else sign for sign in text)
    return " ".join(escaped.split())


def _shortened(text: str) -> str:
    return text if len(text) <= CELL else text[: CELL - 1] + "…"


def _tag_if_there(api: Any, name: str, version: str, text: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        api.set_model_version_tag(name, version, "editloop.promotion", text)
    except MlflowException as error:  # a version that was deleted stays in the records
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
