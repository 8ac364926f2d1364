"""Opens a suite by its name and folder, and checks all of it before a judge scores anything."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress, TextColumn, TimeElapsedColumn

from editloop.content import sha256_json
from editloop.errors import EditLoopError, there_are
from editloop.evaluation.clusters import joined_clusters
from editloop.evaluation.suites.aurora_bench import read_aurora_bench
from editloop.evaluation.suites.editreward_bench import read_editreward_bench
from editloop.evaluation.suites.editreward_compass import TIE_BELOW, read_editreward_compass
from editloop.evaluation.suites.editscore_bench import read_editscore_bench
from editloop.evaluation.suites.faults import NothingToMeasureError, duplicates, raise_faults
from editloop.evaluation.suites.genai_bench import read_genai_bench
from editloop.evaluation.suites.hub_rows import read_records
from editloop.evaluation.suites.imagenhub import read_imagenhub
from editloop.evaluation.suites.mmrb2_edit import read_mmrb2_edit
from editloop.evaluation.suites.names import SUITES, suite_names
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import LABELS, REVERSE, Comparison, Counting, Item, Label, Suite, pair_item
from editloop.evaluation.suites.team import read_heldout, read_scenes
from editloop.plugins import load_plugin
from editloop.terminal import text_console

Reader = Callable[[Path, PictureLoader, list[str]], list[Item]]
"""(data, loader, faults) -> items. A reader adds the faults that it finds to `faults`, and leaves such items out."""


class SuiteFormat(NamedTuple):
    """How a suite is read and counted. The fields after `read` are those of `Suite`."""

    read: Reader
    counting: Counting
    four_words: bool = False
    mean_over_slices: bool = False
    tie_below: float | None = None
    exact_axes: bool = False
    both_orders: bool = False


SUITE_FORMATS: dict[str, SuiteFormat] = {
    "editscore-bench": SuiteFormat(read_editscore_bench, "strict", mean_over_slices=True),
    "editreward-bench": SuiteFormat(read_editreward_bench, "groups"),
    "genai-bench": SuiteFormat(read_genai_bench, "ties", four_words=True),
    "aurora-bench": SuiteFormat(read_aurora_bench, "ties"),
    "imagenhub": SuiteFormat(read_imagenhub, "correlation"),
    "editreward-compass": SuiteFormat(read_editreward_compass, "ties", tie_below=TIE_BELOW, exact_axes=True),
    "mmrb2-edit": SuiteFormat(read_mmrb2_edit, "strict", both_orders=True),
    "heldout": SuiteFormat(read_heldout, "strict"),
    "scenes": SuiteFormat(read_scenes, "strict"),
}
assert tuple(SUITE_FORMATS) == SUITES
TURNED: dict[Label, Label] = {"left": "right", "right": "left"}
"""A preference, with the edits shown the other way round."""
PAIR_SUITES = tuple(name for name, suite_format in SUITE_FORMATS.items() if suite_format.counting in ("strict", "ties"))
"""Suites of pairs. A file of labels can replace their folder when the judge's answers are saved already."""


def open_suite(name: str, data: Path | None, labels: Path | None = None) -> Suite:
    """Open a suite and check its content.

    Args:
        name: A shipped suite or a plug-in's, see `suite_names`.
        data: The suite's folder or file, in its public format. None: use `labels`.
        labels: Instead of `data`, for suites of pairs: JSON lines with key and label (human votes). The suite then has
            no images, and only saved answers can be measured on it.

    Raises:
        NothingToMeasureError: The content has no pair or rating of the suite.
        EditLoopError: There is no such suite, both or none of `data` and `labels` are given, or the content has faults.
            The message lists them: missing or broken images, keys that occur twice, unknown words.

    Examples:
        >>> import editloop
        >>> from pathlib import Path
        >>> suite = editloop.open_suite("genai-bench", Path("genai-bench"))
        >>> len(suite.items), suite.counting
        (4, 'ties')
    """
    suite_format = SUITE_FORMATS.get(name) or load_plugin("editloop.suites", name)
    if suite_format is None:
        raise EditLoopError(f"suite {name}: no such suite; {there_are(name, suite_names())}")
    if data is not None and labels is not None:
        raise EditLoopError(f"--labels {labels}: {data} has labels of its own; give one of the two.")
    if data is None:
        if labels is None:
            raise EditLoopError(f"suite {name}: give its folder (--data), or a file of the human votes (--labels).")
        return _suite(name, suite_format, _items_of_labels(name, suite_format, labels))
    faults = list[str]()
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed} pictures"), TimeElapsedColumn())
    with Progress(*columns, transient=True, console=text_console(stderr=True)) as progress:
        bar = progress.add_task(f"{name} is looked through", total=None)
        loader = PictureLoader(data if data.is_dir() else data.parent, lambda: progress.advance(bar))
        try:
            items = suite_format.read(data, loader, faults)
        finally:
            faults += loader.close()
    keys = [
        *duplicates(item.key for item in items),
        *duplicates(comparison.key for item in items for comparison in item.comparisons),
    ]
    faults += [f"key {key} comes twice" for key in dict.fromkeys(keys)]
    raise_faults(faults, f"--data {data}")
    if not any(item.comparisons or item.ratings is not None for item in items):
        raise NothingToMeasureError(f"--data {data}: nothing to measure in it, no pair or rating of {name}.")
    return _suite(name, suite_format, items)


def _items_of_labels(name: str, suite_format: SuiteFormat, path: Path) -> list[Item]:
    """Items without images, one for each line of a file of labels."""
    if name not in PAIR_SUITES:
        raise EditLoopError(
            f"--labels {path}: {name} is no suite of pairs ({', '.join(PAIR_SUITES)} are); give --data."
        )
    records, faults, items = read_records(path), list[str](), []
    for number, record in enumerate(records, 1):
        key, label = record.get("key"), record.get("label")
        if not isinstance(key, str | int) or isinstance(key, bool):
            faults.append(f"line {number}: no key")
        elif label not in LABELS:
            faults.append(f"line {number}: label {label!r}; there are {', '.join(LABELS)}")
        elif suite_format.counting == "strict" and label not in ("left", "right"):
            faults.append(f"line {number}: label {label!r}; {name} has no ties, its pairs are left or right")
        else:
            items.append(pair_item(str(key), label, ""))
    faults += [f"key {key} comes twice" for key in duplicates(item.key for item in items)]
    raise_faults(faults, str(path))
    if not items:
        raise EditLoopError(f"{path}: no labels in it.")
    return items


def _suite(name: str, suite_format: SuiteFormat, items: Sequence[Item]) -> Suite:
    if suite_format.both_orders:
        items = [_in_both_orders(item) for item in items]
    if any(item.references for item in items):
        shown = [[item.cluster_name, *(picture.sha256 for picture in item.references)] for item in items]
        items = [replace(item, cluster=name) for item, name in zip(items, joined_clusters(shown), strict=True)]
    sha256 = sha256_json([name, [_item_content(item) for item in items]])
    return Suite(
        name,
        suite_format.counting,
        sha256,
        tuple(items),
        suite_format.four_words,
        suite_format.mean_over_slices,
        suite_format.tie_below,
        suite_format.exact_axes,
        suite_format.both_orders,
    )


def _in_both_orders(item: Item) -> Item:
    """The item with a second comparison beside each one, which shows its edits the other way round."""
    turned = tuple(
        Comparison(pair.key + REVERSE, pair.right, pair.left, TURNED.get(pair.label, pair.label))
        for pair in item.comparisons
    )
    return replace(item, comparisons=item.comparisons + turned)


def _item_content(item: Item) -> list[Any]:
    return [
        item.key,
        item.cluster_name,
        item.slice,
        item.axis,
        item.instruction,
        item.candidates,
        [picture.sha256 for picture in item.pictures()],
        [[comparison.key, comparison.left, comparison.right, comparison.label] for comparison in item.comparisons],
        None if item.ratings is None else [[repr(float(rating)) for rating in row] for row in item.ratings],
    ]
