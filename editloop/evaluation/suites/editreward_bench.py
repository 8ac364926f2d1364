"""Reads EditReward's EditReward-Bench (arXiv 2509.26346): groups of two, three or four edits that people ranked.

On the Hugging Face hub a row is one comparison, and the rows of a group share their id up to the first `_`. In the
published JSON files a row is a group.
"""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from editloop.evaluation.suites.faults import duplicates
from editloop.evaluation.suites.hub_rows import HubRow, data_files, read_records, read_rows
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import Comparison, Item, Label, PictureRef

LETTERS = "ABCD"
SIZES = {"2pair": 2, "3pair": 3, "4pair": 4}
"""Number of edits in a group, by the row's `dataset`."""
COLUMNS = ("id", "dataset", "instruction", "ranking", "comparison_type")
PICTURES = ("source_image", "candidate_1", "candidate_2")
JSON_FILE = re.compile(r"(?P<size>[234])pair")
TIES: dict[str, Label] = {"Good": "tie", "Bad": "both_bad", "": "tie"}
"""Label of equal edits, by the last word of a ranking such as `A=B=Bad`."""


def read_editreward_bench(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """Return the items. Candidates are named A to D, and the slice is 2pair, 3pair or 4pair.

    On the hub an item's key is the common beginning of its rows' ids. Where groups of two sizes share that beginning,
    the size precedes it. Items with faults are left out.

    Args:
        data: The dataset's folder or file, or the folder of the published JSON files.
        loader: Loads the images and collects their faults.
        faults: Receives the other faults, a sentence each.

    Raises:
        EditLoopError: There are no files or several splits, or a file cannot be read or lacks a column.
    """
    files = data_files(data)
    if files[0].suffix == ".json":
        return [item for path in files for item in _items_of_json(path, loader, faults)]
    rows: dict[tuple[str, str], list[HubRow]] = {}
    for row in read_rows(data, COLUMNS, PICTURES, loader):
        size, key = row.values["dataset"], str(row.values["id"])
        if size not in SIZES:
            faults.append(f"{row.name}: dataset {size!r}; there are {', '.join(SIZES)}")
            continue
        rows.setdefault((size, key.split("_")[0]), []).append(row)
    shared = set(duplicates(group for _, group in rows))
    keys = {(size, group): f"{size}-{group}" if group in shared else group for size, group in rows}
    items = [_item_of_rows(group_key[0], keys[group_key], members, faults) for group_key, members in rows.items()]
    return [item for item in items if item]


def _pair_label(ranking: str, left: str, right: str) -> Label | None:
    """Label of two letters in a ranking such as `A>B`, `C>A>B`, `A<B`, `A=B=Good`, `A=B=Bad`; None if not ranked."""
    equal = re.fullmatch(r"([A-D](?:=[A-D])+)(?:=(Good|Bad))?", ranking)
    if equal:
        return TIES[equal[2] or ""] if left in equal[1] and right in equal[1] else None
    ordered = ranking if "<" not in ranking else ">".join(reversed(ranking.split("<")))
    letters = ordered.split(">")
    if len(set(letters)) != len(letters) or not {left, right} <= set(letters) <= set(LETTERS):
        return None
    return "left" if letters.index(left) < letters.index(right) else "right"


def _item_of_rows(size: str, group: str, rows: Sequence[HubRow], faults: list[str]) -> Item | None:
    """The item of a group, from its rows, each a comparison. None if the group has a fault."""
    edits: dict[str, PictureRef] = {}
    comparisons: dict[tuple[int, int], Comparison] = {}
    wrong = []
    for row in rows:
        kind, ranking = str(row.values["comparison_type"]), str(row.values["ranking"])
        sides = re.fullmatch(r"([A-D])vs([A-D])", kind)
        if sides is None or sides[1] == sides[2]:
            wrong.append(f"{row.name}: comparison_type {kind!r}; AvsB to CvsD are known")
            continue
        label = _pair_label(ranking, sides[1], sides[2])
        if label is None:
            wrong.append(f"{row.name}: ranking {ranking!r} does not order {sides[1]} and {sides[2]}")
            continue
        for letter, column in ((sides[1], "candidate_1"), (sides[2], "candidate_2")):
            (picture,) = row.pictures[column]
            if picture is None:
                return None
            first = edits.setdefault(letter, picture)
            if first is not picture and first.sha256 != picture.sha256:
                wrong.append(f"{row.name}: {column} is another picture than {letter} in {edits[letter].name}")
        left, right = LETTERS.index(sides[1]), LETTERS.index(sides[2])
        if tuple(sorted((left, right))) in {tuple(sorted(pair)) for pair in comparisons}:
            wrong.append(f"{row.name}: group {group} has {kind} twice")
        comparisons[left, right] = Comparison(str(row.values["id"]), left, right, label)
    expected = SIZES[size] * (SIZES[size] - 1) // 2
    if not wrong and (len(comparisons) != expected or sorted(edits) != list(LETTERS[: SIZES[size]])):
        wrong.append(f"group {group}: {len(comparisons)} comparisons of {size}; it has {expected}")
    faults += wrong
    source = rows[0].pictures["source_image"][0]
    if wrong or source is None:
        return None
    return _item(group, size, str(rows[0].values["instruction"]), source, edits, tuple(comparisons.values()))


def _items_of_json(path: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """The items of a published JSON file. Keys are size and row, as 3pair-0; comparisons are named as 3pair-0_AvsB."""
    size = JSON_FILE.search(path.stem)
    items = []
    for number, record in enumerate(read_records(path)):
        name, key = f"{path.name} row {number}", f"{size[0] if size else 'group'}-{number}"
        paths, vote, prompt = record.get("paths_generated"), record.get("human_vote"), record.get("prompt")
        ranking = str(vote.get("ranking")) if isinstance(vote, dict) else ""
        K = len(paths) if isinstance(paths, list) else 0
        if not isinstance(paths, list) or K not in SIZES.values() or not isinstance(prompt, str):
            faults.append(f"{name}: a prompt and two to four paths_generated are wanted")
            continue
        if size and int(size["size"]) != K:
            faults.append(f"{name}: {K} paths_generated in a file of {size[0]}")
            continue
        pairs = list(combinations(range(K), 2))
        labels = [_pair_label(ranking, LETTERS[left], LETTERS[right]) for left, right in pairs]
        if None in labels:
            faults.append(f"{name}: human_vote's ranking {ranking!r} does not order all {K}")
            continue
        source = loader.file(str(record.get("path_src") or ""), name)
        edits = {letter: loader.file(str(edit_path), name) for letter, edit_path in zip(LETTERS, paths, strict=False)}
        comparisons = tuple(
            Comparison(f"{key}_{LETTERS[left]}vs{LETTERS[right]}", left, right, label)
            for (left, right), label in zip(pairs, labels, strict=True)
            if label
        )
        readable = {letter: picture for letter, picture in edits.items() if picture}
        if source and len(readable) == K:
            items.append(_item(key, f"{K}pair", prompt, source, readable, comparisons))
    return items


def _item(
    key: str,
    size: str,
    instruction: str,
    source: PictureRef,
    edits: dict[str, Any],
    comparisons: tuple[Comparison, ...],
) -> Item:
    letters = tuple(sorted(edits))
    return Item(
        key=key,
        cluster=source,
        slice=size,
        instruction=instruction,
        candidates=letters,
        comparisons=comparisons,
        source=source,
        edits=tuple(edits[letter] for letter in letters),
    )
