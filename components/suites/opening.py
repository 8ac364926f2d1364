"""From a suite's name and a folder to the suite, checked whole before anything is asked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from components.suites.aurora_bench import read_aurora_bench
from components.suites.editreward_bench import read_editreward_bench
from components.suites.editscore_bench import read_editscore_bench
from components.suites.faults import refuse, twice
from components.suites.genai_bench import read_genai_bench
from components.suites.hub_rows import read_records
from components.suites.imagenhub import read_imagenhub
from components.suites.names import SUITES
from components.suites.pictures import Shelf
from components.suites.suite import ALL, LABELS, Comparison, Counting, Item, Suite
from components.suites.team import read_heldout, read_scenes
from infra.content import sha256_json
from infra.errors import EditLoopError

Reader = Callable[[Path, Shelf, list[str]], list[Item]]


class Form(NamedTuple):
    """How a suite is read and counted."""

    read: Reader
    counting: Counting
    four_words: bool = False
    mean_over_slices: bool = False


FORMS: dict[str, Form] = {
    "editscore-bench": Form(read_editscore_bench, "strict", mean_over_slices=True),
    "editreward-bench": Form(read_editreward_bench, "groups"),
    "genai-bench": Form(read_genai_bench, "ties", four_words=True),
    "aurora-bench": Form(read_aurora_bench, "ties"),
    "imagenhub": Form(read_imagenhub, "correlation"),
    "heldout": Form(read_heldout, "strict"),
    "scenes": Form(read_scenes, "strict"),
}
assert tuple(FORMS) == SUITES
OF_PAIRS = tuple(name for name, form in FORMS.items() if form.counting in ("strict", "ties"))
"""Suites whose units are pairs, which a file of labels can stand in for."""


def open_suite(name: str, data: Path | None, labels: Path | None = None) -> Suite:
    """The suite `name` (one of SUITES) in the folder `data`, in its public format; or, without `data`, the votes of
    `labels` (JSON lines: key, label) alone, for judges whose answers are saved.

    EditLoopError that lists what is wrong: missing or faulty pictures, keys that come twice, unknown words.
    """
    if name not in FORMS:
        raise EditLoopError(f"suite {name}: no such suite; there are {', '.join(SUITES)}.")
    form = FORMS[name]
    if data is not None and labels is not None:
        raise EditLoopError(f"--labels {labels}: {data} has labels of its own; give one of the two.")
    if data is None:
        if labels is None:
            raise EditLoopError(f"suite {name}: give its folder (--data), or a file of the human votes (--labels).")
        return _suite(name, form, _of_labels(name, form, labels))
    faults = list[str]()
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed} pictures"), TimeElapsedColumn())
    with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{name} is looked through", total=None)
        shelf = Shelf(data if data.is_dir() else data.parent, lambda: progress.advance(bar))
        try:
            items = form.read(data, shelf, faults)
        finally:
            faults += shelf.close()
    keys = [*twice(item.key for item in items), *twice(one.key for item in items for one in item.comparisons)]
    faults += [f"key {key} comes twice" for key in dict.fromkeys(keys)]
    refuse(faults, f"--data {data}")
    if not any(item.comparisons or item.ratings is not None for item in items):
        raise EditLoopError(f"--data {data}: nothing to measure in it, no pair or rating of {name}.")
    return _suite(name, form, items)


def _of_labels(name: str, form: Form, path: Path) -> list[Item]:
    """Items without pictures, one a line of `path`."""
    if name not in OF_PAIRS:
        raise EditLoopError(f"--labels {path}: {name} is no suite of pairs ({', '.join(OF_PAIRS)} are); give --data.")
    records, faults, items = read_records(path), list[str](), []
    for number, record in enumerate(records, 1):
        key, label = record.get("key"), record.get("label")
        if not isinstance(key, str | int) or isinstance(key, bool):
            faults.append(f"line {number}: no key")
        elif label not in LABELS:
            faults.append(f"line {number}: label {label!r}; there are {', '.join(LABELS)}")
        elif form.counting == "strict" and label not in ("left", "right"):
            faults.append(f"line {number}: label {label!r}; {name} has no ties, its pairs are left or right")
        else:
            one = Comparison(str(key), 0, 1, label)
            items.append(Item(str(key), str(key), ALL, "", ("left", "right"), (one,)))
    faults += [f"key {key} comes twice" for key in twice(item.key for item in items)]
    refuse(faults, str(path))
    if not items:
        raise EditLoopError(f"{path}: no labels in it.")
    return items


def _suite(name: str, form: Form, items: Sequence[Item]) -> Suite:
    sha256 = sha256_json([name, [_content(item) for item in items]])
    return Suite(name, form.counting, sha256, tuple(items), form.four_words, form.mean_over_slices)


def _content(item: Item) -> list[Any]:
    return [
        item.key, item.cluster, item.slice, item.axis, item.instruction, item.candidates,
        [picture.sha256 for picture in item.pictures()],
        [[one.key, one.left, one.right, one.label] for one in item.comparisons],
        None if item.ratings is None else [[repr(float(one)) for one in row] for row in item.ratings],
    ]  # fmt: skip
