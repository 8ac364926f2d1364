"""Reads the editing part of Multimodal RewardBench 2 (MMRB2): pairs whose better edit three people agree on.

A prompt may have several source pictures: the first is the source, up to three more are its references. Its verdicts
are given twice, with the edits in either order.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from editloop.data.picture_file import first_line
from editloop.data.vocabulary import MOST_REFERENCES
from editloop.errors import EditLoopError
from editloop.evaluation.suites.hub_rows import read_rows
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import REVERSE, Item, Label, PictureRef, pair_item
from editloop.text_file import file_bytes

FILE = "edit.json"
COLUMNS = ("pair_id", "prompt_text", "prompt_source", "chosen")
PICTURES = ("prompt_images", "response_a_images", "response_b_images")
TABLES = ("*.parquet", "*/*.parquet", "*.arrow", "*/*.arrow")
"""Where tables of the hub lie in a folder."""
PLACE = re.compile(r"<image_\d+>")
"""Where a picture stands in the text of a prompt."""
SIDES: dict[Any, Label] = {"A": "left", "B": "right"}


class _Pair(NamedTuple):
    """A pair of either layout. Pictures are None where they have a fault."""

    name: str
    key: Any
    source: Any
    """What the prompt comes from, such as `emu-edit`."""
    texts: Sequence[str]
    pictures: tuple[Sequence[PictureRef | None], Sequence[PictureRef | None], Sequence[PictureRef | None]]
    """Of the prompt, and of the responses A and B."""
    chosen: Any


def read_mmrb2_edit(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """Return the items, in the order of the pairs. `left` is response A; the slice is the prompt's source.

    Args:
        data: Folder with edit.json, such a file, or the parquet files of the hub's config `edit`.
        loader: Loads the images and collects their faults.
        faults: Receives the other faults, a sentence each.

    Raises:
        EditLoopError: There are no files or several splits, or a file cannot be read or lacks a column.
    """
    path = data / FILE if (data / FILE).is_file() else data
    if path.is_dir() and not any(file for pattern in TABLES for file in path.glob(pattern)):
        raise EditLoopError(f"--data {data}: neither {FILE} nor parquet files of the hub's config edit in it.")
    pairs = _json_pairs(path, loader, faults) if path.suffix == ".json" else _hub_pairs(data, loader)
    items = (_item(pair, faults) for pair in pairs)
    return [item for item in items if item]


def is_predictions(path: Path) -> bool:
    """Return whether a file is one of predictions as the publication's code writes them: a JSON object.

    Args:
        path: The file.
    """
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(64).lstrip()[:1] == b"{"


def read_predictions(path: Path) -> Iterator[dict[str, str | None]]:
    """Yield the published predictions as verdicts: of each pair one in each order, null where there is none.

    Args:
        path: The file: `{PAIR: {"forward": [{"judgement": "A"}], "reverse": [{"judgement": "B"}]}}`. In `reverse` A is
            response B. As published, only the first judgement of each order counts, and another word than A or B is
            a wrong one.

    Raises:
        EditLoopError: The file is not JSON, or not of this layout.
    """
    predictions = _json_object(path)
    for key, orders in predictions.items():
        if not isinstance(orders, dict):
            raise EditLoopError(f"{path}: pair {key}: an object with forward and reverse is wanted.")
        for order, end in (("forward", ""), ("reverse", REVERSE)):
            judgements = orders.get(order) or []
            if not isinstance(judgements, list) or not all(isinstance(judgement, dict) for judgement in judgements):
                raise EditLoopError(f"{path}: pair {key}: {order} is no list of judgements.")
            word = judgements[0].get("judgement") if judgements else None
            yield {"key": key + end, "verdict": SIDES.get(word, "tie") if word else None}


def _json_pairs(path: Path, loader: PictureLoader, faults: list[str]) -> Iterator[_Pair]:
    pairs = _json_object(path).get("pairs")
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise EditLoopError(f"{path}: no list of objects `pairs` in it. Another suite's file?")
    for number, pair in enumerate(pairs):
        name = f"{path.name} pair {number}"
        responses = [pair.get(side) for side in ("response_a", "response_b")]
        contents = [
            pair.get("prompt_content"),
            *(side.get("response_content") if isinstance(side, dict) else None for side in responses),
        ]
        if not all(_is_content(content) for content in contents):
            faults.append(
                f"{name}: prompt_content and both response_content are lists of [image, PATH] and [text, TEXT]; "
                "benchmark/build_from_hf.py of the publication puts them together"
            )
            continue
        prompt, a, b = (
            [loader.file(value, name) for kind, value in content if kind == "image"] for content in contents
        )
        texts = [value for kind, value in contents[0] if kind == "text"]
        yield _Pair(name, pair.get("id"), pair.get("prompt_source"), texts, (prompt, a, b), pair.get("chosen"))


def _hub_pairs(data: Path, loader: PictureLoader) -> Iterator[_Pair]:
    for row in read_rows(data / "edit" if (data / "edit").is_dir() else data, COLUMNS, PICTURES, loader):
        values, (prompt, a, b) = row.values, (row.pictures[column] for column in PICTURES)
        texts = PLACE.split(str(values["prompt_text"] or ""))
        yield _Pair(row.name, values["pair_id"], values["prompt_source"], texts, (prompt, a, b), values["chosen"])


def _is_content(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, list) and len(part) == 2 and all(isinstance(value, str) for value in part) for part in content
    )


def _item(pair: _Pair, faults: list[str]) -> Item | None:
    instruction = "\n".join(text.strip() for text in pair.texts if text.strip())
    chosen = SIDES.get(str(pair.chosen).upper())
    wrong = [
        f"{pair.name}: {fault}"
        for fault, is_faulty in (
            (f"chosen {pair.chosen!r}; there are {', '.join(SIDES)}", chosen is None),
            ("no id", not isinstance(pair.key, str) or not pair.key),
            ("no prompt_source", not isinstance(pair.source, str) or not pair.source),
            ("no text in its prompt", not instruction),
            ("a prompt and two responses with a picture each are wanted", not all(pair.pictures)),
        )
        if is_faulty
    ]
    faults += wrong
    if wrong or chosen is None or not all(picture for pictures in pair.pictures for picture in pictures):
        return None
    first = [pictures[0] for pictures in pair.pictures if pictures[0]]
    sources, *edits = (tuple(picture for picture in pictures[1:] if picture) for pictures in pair.pictures)
    further = tuple(picture for pictures in edits for picture in pictures)
    item = pair_item(pair.key, chosen, instruction, first, pair.source)
    if len(sources) > MOST_REFERENCES:
        return replace(item, further=(*sources, *further))
    return replace(item, references=sources, further=further)


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(file_bytes(path))
    except OSError as error:
        raise EditLoopError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: not JSON ({first_line(error)}).") from None
    if not isinstance(content, dict):
        raise EditLoopError(f"{path}: a JSON object is wanted.")
    return content
