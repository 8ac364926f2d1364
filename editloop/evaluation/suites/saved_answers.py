"""Reads a judge's answers from files: scores of edits, or verdicts on comparisons."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from editloop.content import sha256_file
from editloop.data.table_file import TableFault, TableRow, id_fault, open_table, parse_number
from editloop.errors import EditLoopError
from editloop.evaluation.suites.answers import SEVERAL_PICTURES, SuiteAnswers
from editloop.evaluation.suites.faults import duplicates, raise_faults
from editloop.evaluation.suites.hub_rows import read_records
from editloop.evaluation.suites.mmrb2_edit import is_predictions, read_predictions
from editloop.evaluation.suites.suite import LABELS, Item, Label, Suite
from editloop.settings_file import shorten

COLUMNS = ("key", "candidate", "score")


def read_scores(path: Path, suite: Suite) -> SuiteAnswers:
    """Read scores from a file with the columns key, candidate and score.

    `key` is an item's key. `candidate` is an edit's name in the suite (left or right; A to D; an editor's name) or its
    index from 0. An empty score (null) is a missing answer. An item that a judge need not be asked about (several
    source pictures, or an axis that the judge does not have) may be left out as a whole.

    Args:
        path: The file: .csv or .tsv (any that `open_table` reads), .parquet, .jsonl, or .json with a list of objects.
        suite: The suite that the scores belong to.

    Raises:
        EditLoopError: The file cannot be read or lacks a column, or scores are absent, occur twice, are not finite, or
            have keys or candidates that the suite does not have. The message lists them.
    """
    items = {item.key: item for item in suite.items}
    scores_by_edit: dict[tuple[str, int], float] = {}
    faults, edits_read = list[str](), list[tuple[str, int]]()
    for number, row in enumerate(_score_rows(path), 1):
        key, candidate, score = (row.get(column) for column in COLUMNS)
        item = items.get(str(key))
        if item is None:
            rule = id_fault(str(key)) or f"whose keys are {_example_keys(items)}"
            faults.append(f"row {number}: key {key} is not in {suite.name}, {rule}")
            continue
        index = _candidate_index(item, candidate)
        if index is None:
            faults.append(
                f"row {number}: {key} has no candidate {candidate}; it has {', '.join(item.candidates)} (or their "
                "places, from 0)"
            )
            continue
        value = _parse_score(score)
        if value is None:
            faults.append(f"row {number}: score {score!r} of {key} {candidate} is not a finite number")
            continue
        edits_read.append((item.key, index))
        scores_by_edit[item.key, index] = value
    faults += [f"{key} {items[key].candidates[index]} comes twice" for key, index in duplicates(edits_read)]
    left_out = _left_out(suite, {key for key, _ in scores_by_edit})
    scored_items = [item for item in suite.items if item.key not in left_out]
    if not faults:
        faults = [
            f"no score of {item.key} {name}; leave its score empty where the judge gave none"
            for item in scored_items
            for index, name in enumerate(item.candidates)
            if (item.key, index) not in scores_by_edit
        ]
    raise_faults(faults, str(path))
    scores = {
        item.key: np.array([scores_by_edit[item.key, index] for index in range(len(item.candidates))])
        for item in scored_items
    }
    missing = sum(math.isnan(score) for score in scores_by_edit.values())
    reasons = {"no score in the file": missing} if missing else {}
    return SuiteAnswers(_saved(path), scores, reasons=reasons, left_out=left_out)


def read_verdicts(path: Path, suite: Suite) -> SuiteAnswers:
    """Read verdicts from JSON lines with `key` and `verdict`.

    `key` is a comparison's key, which in a suite of pairs is the item's. `verdict` is left, right, both_bad or tie. A
    null verdict, or no line, is a missing answer. Of a suite in both orders, the predictions that the publication's own
    code writes are read as well.

    Args:
        path: The file.
        suite: The suite that the verdicts belong to.

    Raises:
        EditLoopError: The suite has no comparisons, or the file cannot be read, is empty, has other words, or has keys
            that occur twice or that the suite does not have.
    """
    comparison_keys = {comparison.key: None for item in suite.items for comparison in item.comparisons}
    if not comparison_keys:
        raise EditLoopError(f"--verdicts {path}: {suite.name} has no pairs to decide; give --scores or --model.")
    faults, verdicts, keys_read = list[str](), dict[str, Label | None](), list[str]()
    published = suite.both_orders and is_predictions(path)
    for number, record in enumerate(read_predictions(path) if published else read_records(path), 1):
        key, verdict = str(record.get("key")), record.get("verdict", "")
        if key not in comparison_keys:
            faults.append(
                f"line {number}: key {key} is not in {suite.name}, whose keys are {_example_keys(comparison_keys)}"
            )
        elif verdict is not None and verdict not in LABELS:
            faults.append(f"line {number}: verdict {verdict!r}; there are {', '.join(LABELS)}, or null")
        else:
            keys_read.append(key)
            verdicts[key] = verdict
    raise_faults([*faults, *(f"key {key} comes twice" for key in duplicates(keys_read))], str(path))
    if not verdicts:
        raise EditLoopError(f"{path}: no verdicts in it.")
    missing = sum(verdicts.get(key) is None for key in comparison_keys)
    return SuiteAnswers(_saved(path), verdicts=verdicts, reasons={"no verdict in the file": missing} if missing else {})


def _left_out(suite: Suite, scored: set[str]) -> dict[str, str]:
    """Why items without any score are not measured, by key: those that no judge need be asked about."""
    scored_axes = {item.axis for item in suite.items if item.key in scored}
    return {
        item.key: SEVERAL_PICTURES if item.references or item.further else f"no score of {item.axis} in the file"
        for item in suite.items
        if item.key not in scored
        and (item.references or item.further or (suite.exact_axes and item.axis not in scored_axes))
    }


def _score_rows(path: Path) -> Iterable[dict[str, Any]]:
    if not path.is_file():
        raise EditLoopError(f"{path}: no such file.")
    rows: list[dict[str, Any]]
    if path.suffix in (".csv", ".tsv", ".txt", ".parquet"):
        table = open_table(path, COLUMNS)
        names, read = list(table.columns), list(table.rows)
        raise_faults([f"{path}:{row.line}: {row.rule}" for row in read if isinstance(row, TableFault)], str(path))
        rows = [
            {name: row.cells[name] for name in COLUMNS if name in names} for row in read if isinstance(row, TableRow)
        ]
    elif path.suffix in (".jsonl", ".json"):
        rows = read_records(path)
        names = list(rows[0] if rows else COLUMNS)
    else:
        raise EditLoopError(f"{path}: scores are a .csv, .tsv, .parquet or .jsonl file.")
    if lacking := [column for column in COLUMNS if column not in names]:
        raise EditLoopError(f"{path}: no column {', '.join(lacking)}; it has {shorten(', '.join(map(str, names)))}.")
    return rows


def _candidate_index(item: Item, candidate: Any) -> int | None:
    name = str(candidate)
    if name in item.candidates:
        return item.candidates.index(name)
    return int(name) if name.isascii() and name.isdigit() and int(name) < len(item.candidates) else None


def _parse_score(score: Any) -> float | None:
    """A score as a number: NaN if it is empty (a missing answer), None if it is not a finite number."""
    if score is None or score == "":
        return math.nan
    try:
        value = parse_number(score) if isinstance(score, str) else math.inf if isinstance(score, bool) else float(score)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _example_keys(keys: Mapping[str, Any]) -> str:
    return f"such as {', '.join(list(keys)[:3])}"


def _saved(path: Path) -> dict[str, Any]:
    return {"name": path.stem, "version": sha256_file(path)}
