"""Promotion records on MLflow's own pages: a table on the model's page, and tags on the pages of its versions."""

from typing import TYPE_CHECKING

from editloop.lineage.registry import Promotion, tolerate_error

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

HEADING = "## Promotions"
MAX_DESCRIPTION = 5000
"""Longest description in characters, MLflow's limit."""
CELL = 120
"""Longest text of a table's cell, in characters. The record itself has the full text."""


def write_promotion_pages(api: "MlflowClient", name: str, records: list[Promotion]) -> None:
    """Write the records below the text that people wrote into a model's description, and tag the versions concerned.

    The versions tagged are the one that the last record's alias points at and the one before.

    Args:
        api: The MlflowClient.
        name: Name in the registry.
        records: The model's records, oldest first; at least one.
    """
    last = records[-1]
    written = (api.get_registered_model(name).description or "").partition(HEADING)[0].strip()
    table = promotion_table(records, MAX_DESCRIPTION - len(written) - 2)
    api.update_registered_model(name, "\n\n".join(part for part in (written, table) if part))
    if last.version:
        api.set_model_version_tag(name, last.version, "editloop.promotion", promotion_sentence(last))
    if last.previous and last.previous != last.version:
        text = f"no longer {last.alias}. {promotion_sentence(last)}"
        with tolerate_error("RESOURCE_DOES_NOT_EXIST"):  # a version that was deleted stays in the records
            api.set_model_version_tag(name, last.previous, "editloop.promotion", text)


def promotion_table(records: list[Promotion], longest: int) -> str:
    """Return the records as a Markdown table with a heading, newest first, as far as they fit.

    Args:
        records: The model's records, oldest first.
        longest: Most characters of the text.
    """
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
    """Return a record as text, for a version's tag.

    Args:
        record: The record.
    """
    now = f"version {record.version}" if record.version else "no version"
    before = f"version {record.previous}" if record.previous else "none"
    return (
        f"Record {record.number}, {promotion_time(record)}: {record.alias} is {now} "
        f"({record.action} by {record.actor}: {record.reason}). Before: {before}. "
        f"Evidence: {evidence_words(record.evidence)}."
    )


def promotion_time(record: Promotion) -> str:
    """Return the time of a record as text, to the second.

    Args:
        record: The record.
    """
    return record.at[:19].replace("T", " ") + " UTC"


def evidence_words(evidence: dict[str, str]) -> str:
    """Return the names of the evidence, each with the first 12 characters of its sha256; "none" without any.

    Args:
        evidence: sha256 by name, as in `Promotion.evidence`.
    """
    return ", ".join(f"{key.removesuffix('_sha256')} {value[:12]}" for key, value in evidence.items()) or "none"


def markdown_cell(text: str) -> str:
    """Return text as one line in which Markdown finds no markup, fit for a table's cell.

    Args:
        text: Any text.
    """
    escaped = "".join(f"\\{sign}" if sign in "\\`*_[]<>|#!" else sign for sign in text)
    return " ".join(escaped.split())


def _shortened(text: str) -> str:
    return text if len(text) <= CELL else text[: CELL - 1] + "…"
