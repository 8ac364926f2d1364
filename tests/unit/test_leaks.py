"""Leaks: planted copies are found by bytes, looks and instruction; what is common or says nothing is none."""

import io
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from editloop.content import complete_folder, sha256_bytes
from editloop.data.fingerprints import compute_fingerprints, similar_pairs
from editloop.datasets.shards import ShardWriter
from editloop.datasets.splits import SPLITS
from editloop.errors import EditLoopError
from editloop.evaluation.leaks.catalogue import normalise_instruction
from editloop.evaluation.leaks.leaks import check_leaks, find_leaks
from editloop.evaluation.suites.suite import ALL, Item, PictureRef, Suite


def photograph(seed: int, side: int = 96) -> Image.Image:
    """Smooth random shapes of colour, as different from each other as photographs are."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, form: str = "PNG", **options: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def row(task: str, instruction: str, source: bytes, image: bytes, split: str = "train") -> dict[str, object]:
    return {
        "task_id": task,
        "name": task,
        "task_type": "add",
        "split": split,
        "instruction": instruction,
        "source": source,
        "target": None,
        "candidate_id": f"{task}-c",
        "image": image,
        "editor": "e",
        "if_mean": 1.0,
        "vq_mean": 1.0,
        "ratings": 1,
    }


def training(folder: Path, rows: list[dict[str, object]]) -> Path:
    with complete_folder(folder, {"seed": 0}) as out:
        for split in SPLITS:
            with closing(ShardWriter(out, split, 256)) as writer:
                for one in rows:
                    if one["split"] == split:
                        writer.add([one], [])
    return folder


def suite(*items: tuple[str, str, list[bytes]]) -> Suite:
    """Items of (key, instruction, [source, edit, edit])."""

    def at(name: str, data: bytes) -> PictureRef:
        return PictureRef(name, lambda: sha256_bytes(data), lambda: data)

    made = tuple(
        Item(
            key,
            key,
            ALL,
            instruction,
            ("left", "right"),
            source=at(f"{key} 0", pictures[0]),
            edits=tuple(at(f"{key} {place}", one) for place, one in enumerate(pictures[1:], 1)),
        )
        for key, instruction, pictures in items
    )
    return Suite("genai-bench", "ties", "0" * 64, made)


def test_each_kind_of_leak_is_found_once_and_the_rest_is_none(tmp_path: Path) -> None:
    pictures = [photograph(seed) for seed in range(20)]
    plain = encoded(Image.new("RGB", (64, 64), "white"))
    brighter = ImageEnhance.Brightness(pictures[3]).enhance(1.1)
    data = training(
        tmp_path / "data",
        [
            row("same", "Add a cat.", encoded(pictures[0]), encoded(pictures[1])),
            row("scaled", "Add a dog.", encoded(pictures[2].resize((60, 60)), "JPEG", quality=60), plain),
            row("asked", " make it  BLUE", encoded(brighter), plain),
            row("touched", "Make it green", encoded(brighter), plain),
            row("common", "Make it brighter.", encoded(pictures[4]), plain),
            row("kept apart", "Add a tree.", encoded(pictures[5]), plain, split="test"),
        ],
    )
    asked = suite(
        ("one", "Add a hat.", [encoded(pictures[6]), encoded(pictures[0]), encoded(pictures[7])]),
        ("two", "Add a dog.", [encoded(pictures[2]), plain, encoded(pictures[8])]),
        ("three", "Make it blue!", [encoded(pictures[3]), encoded(pictures[9]), encoded(pictures[10])]),
        ("four", "make it brighter", [encoded(pictures[11]), plain, encoded(pictures[12])]),
        ("five", "Add a tree.", [encoded(pictures[5]), encoded(pictures[13]), encoded(pictures[14])]),
    )
    found = find_leaks(data, asked)
    assert [(hit.kind, hit.task_id, hit.part, hit.key, hit.suite_part) for hit in found.hits] == [
        ("pixels", "same", "source", "one", "left"),
        ("looks", "scaled", "source", "two", "source"),
        ("instruction", "asked", "source", "three", "source"),
    ]
    assert found.hits[0].distance == 0
    assert [hit.same_instruction for hit in found.hits] == [False, True, True]
    assert [(weak.instruction, weak.tasks, weak.items) for weak in found.weak] == [("make it brighter", 1, 1)]
    assert (found.training_pictures, found.suite_pictures, found.flat) == (10, 15, 6)
    assert found.report()["by_kind"] == {"pixels": 1, "looks": 1, "instruction": 1}
    with pytest.raises(EditLoopError, match=r"3 tasks.*leaks --remove[\s\S]*task scaled, source - two, source"):
        check_leaks(data, asked)
    assert check_leaks(data, suite(("four", "x", [encoded(pictures[11])] * 3))).hits == ()


def test_copies_are_alike_and_different_photographs_are_not() -> None:
    originals = [photograph(seed, 128) for seed in range(60)]
    copies = {
        "jpeg": lambda one: encoded(one, "JPEG", quality=50),
        "webp": lambda one: encoded(one, "WEBP", quality=60),
        "half": lambda one: encoded(one.resize((64, 64))),
        "double": lambda one: encoded(one.resize((256, 200))),
    }
    first = compute_fingerprints([("", encoded(one)) for one in originals])
    never = np.zeros((60, 60), bool)
    for name, copied in copies.items():
        second = compute_fingerprints([("", copied(one)) for one in originals])
        pairs = similar_pairs(first, second, never)[:, :2]
        assert pairs.tolist() == [[number, number] for number in range(60)], name


def test_an_instruction_is_compared_without_what_changes_nothing() -> None:
    assert normalise_instruction(" Make  it\nBLUE. ") == normalise_instruction("make it blue!") == "make it blue"


def test_many_pictures_are_read_by_several_processes_with_the_same_answer(tmp_path, monkeypatch) -> None:
    rows = [
        row(f"t{number:02d}", "Add a cat.", encoded(photograph(number)), encoded(photograph(100 + number)))
        for number in range(30)
    ]
    data = training(tmp_path / "data", rows)
    asked = suite(*[(str(number), "x", [encoded(photograph(number, 48))] * 3) for number in (3, 17, 500)])
    here = find_leaks(data, asked)
    monkeypatch.setattr("editloop.evaluation.leaks.catalogue.MAX_ROWS_IN_PROCESS", 1)
    assert find_leaks(data, asked) == here
    assert here.task_ids == {"t03", "t17"}


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    data = training(tmp_path / "data", [row("t", "x", encoded(photograph(0)), b"no picture")])
    with pytest.raises(EditLoopError, match=r"candidates-train-00000.parquet, task t, t-c"):
        find_leaks(data, suite())
