"""Every fault that an edits file can have is planted here; each must be named with file, line, value and rule."""

import json
import os
import socket
import struct
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from editloop.content import read_manifest
from editloop.data import edits_file
from editloop.data.edits_file import MOST_LINE_FAULTS, read_edits
from editloop.data.picture_file import LARGEST_PICTURE, load_image
from editloop.errors import EditLoopError
from editloop.studies.world.stand_ins import STAND_INS, add_candidates, changed_region

GOOD: dict[str, Any] = {"id": "a", "instruction": "Make it red.", "source": "images/a.png"}


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels: what a decompression bomb looks like before it is decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An edits folder with two pictures, and one picture outside of it."""
    edits = tmp_path / "edits"
    (edits / "images").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, size=(2, 48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise[0]).save(edits / "images" / "a.png")
    Image.fromarray(noise[1]).save(edits / "images" / "b.jpg")
    Image.fromarray(noise[0]).save(tmp_path / "outside.png")
    return edits


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "edits.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def contents(folder: Path) -> dict[Path, bytes]:
    """The bytes of every file below a folder, links followed."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def faults(path: Path) -> list[str]:
    """The lines of the error; nothing may have been written beside the file."""
    before = contents(path.parent)
    with pytest.raises(EditLoopError) as caught:
        read_edits(path)
    assert contents(path.parent) == before
    return str(caught.value).splitlines()


def test_a_good_file_reads_as_written(folder: Path) -> None:
    path = write(
        folder,
        GOOD,
        "",
        {
            **GOOD,
            "id": "b",
            "instruction": "Färbe es blau. 改为蓝色",
            "task": "recolour",
            "target": "images/b.jpg",
            "candidates": [{"image": "images/b.jpg", "editor": "one"}, {"image": "images/a.png", "editor": "two"}],
        },
    )
    plain, full = read_edits(path)
    assert (plain.id, plain.task, plain.target, plain.candidates) == ("a", "edit", None, ())
    assert (full.task, full.instruction) == ("recolour", "Färbe es blau. 改为蓝色")
    assert full.target == folder / "images/b.jpg"
    assert full.candidates == ((folder / "images/b.jpg", "one"), (folder / "images/a.png", "two"))
    assert read_edits(folder) == [plain, full]


@pytest.mark.parametrize(
    ("change", "value", "rule"),
    [
        ({"source": "images/none.png"}, '"images/none.png"', "no such file"),
        ({"source": "images"}, '"images"', "no such file"),
        ({"source": ""}, '""', "no such file"),
        ({"source": "bad\0name"}, "bad", "not a path"),
        ({"source": "x" * 5000}, "xxx", "not a path"),
        ({"source": "../outside.png"}, '"../outside.png"', "leaves the folder"),
        ({"source": "/etc/hostname"}, '"/etc/hostname"', "leaves the folder"),
        ({"target": "images/none.png"}, '"images/none.png"', "no such file"),
        ({"candidates": [{"image": "images/none.png", "editor": "e"}]}, '"images/none.png"', "no such file"),
        ({"candidates": [{"image": "images/a.png"}]}, "candidates[0].editor", "missing"),
        ({"candidates": [{"image": "images/a.png", "editor": " "}]}, '" "', "must not be empty"),
        ({"candidates": [{"image": "images/a.png", "editor": "e", "made": 1}]}, "made = 1", "unknown key"),
        ({"candidates": {"image": "images/a.png"}}, "candidates", "list"),
        ({"promt": "Make it red."}, '"Make it red."', "unknown key; known are id, instruction, source"),
        ({"instruction": ""}, 'instruction = ""', "must not be empty"),
        ({"instruction": " \t"}, "instruction = ", "must not be empty"),
        ({"instruction": "x" * 2001}, "instruction = ", "at most 2000 characters"),
        ({"instruction": 7}, "instruction = 7", "string"),
        ({"id": ""}, 'id = ""', "must not be empty"),
        ({"id": None}, "id = null", "string"),
    ],
)
def test_a_fault_in_a_row_is_named(folder: Path, change: dict[str, Any], value: str, rule: str) -> None:
    path = write(folder, {**GOOD, "id": "first", "instruction": "Another one."}, GOOD | change)
    heading, *found = faults(path)
    assert "1 fault" in heading
    assert "nothing was written" in heading
    assert len(found) == 1
    assert found[0].startswith(f"{path}:2: ")
    assert value in found[0]
    assert rule in found[0]


@pytest.mark.parametrize("key", ["id", "instruction", "source"])
def test_a_missing_key_is_named(folder: Path, key: str) -> None:
    (fault,) = faults(write(folder, {name: value for name, value in GOOD.items() if name != key}))[1:]
    assert f"edits.jsonl:1: {key}: missing" in fault


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", "7", "null", '{"id": "a", "id": "b"}', "[" * 100_000, '{"id": NaN'],
    ids=["cut", "list", "number", "null", "key twice", "deep", "nan"],
)
def test_a_line_that_is_no_row_is_named(folder: Path, line: str) -> None:
    (fault,) = faults(write(folder, GOOD, line))[1:]
    assert "edits.jsonl:2: " in fault
    assert len(fault) < 1000


def test_bytes_that_are_not_utf8_are_named(folder: Path) -> None:
    path = folder / "edits.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + json.dumps(GOOD).encode("utf-16") + b"\n")
    assert any(":2: " in fault and "UTF-8" in fault for fault in faults(path))


def test_what_comes_twice_is_named_with_its_first_place(folder: Path) -> None:
    path = write(folder, GOOD, {**GOOD, "instruction": "Another."}, {**GOOD, "id": "c"})
    same_id, same_task = faults(path)[1:]
    assert f'{path}:2: id = "a": already used at {path}:1' in same_id
    assert f"{path}:3: " in same_task
    assert f"same source and instruction as {path}:1" in same_task


def test_ids_are_unique_over_the_files_of_a_folder(folder: Path) -> None:
    write(folder, GOOD)
    (folder / "more.jsonl").write_text(json.dumps({**GOOD, "instruction": "Another."}) + "\n")
    with pytest.raises(EditLoopError, match=r"more\.jsonl:1: id = \"a\": already used at .*edits\.jsonl:1"):
        read_edits(folder)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "not a readable"),
        (b"not a picture", "not a readable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "not a readable"),
        (png_header(30_000, 30_000), "900,000,000 pixels; at most 50,000,000"),
        (png_header(10_000, 10_000), "100,000,000 pixels; at most 50,000,000"),
        (png_header(8_000, 8_000), "8,000 x 8,000 pixels; at most 50,000,000"),
        (png_header(2_000_000_000, 2_000_000_000), "pixels; at most 50,000,000"),
        (png_header(64, 1), "64 x 1 pixels; each side needs at least 16"),
        (png_header(3217, 16), "3,217 x 16 pixels; the longer side may be 200 times the shorter"),
        (png_header(64, 64), "not a readable"),
    ],
    ids=["empty", "text", "eps", "30000x30000", "10000x10000", "8000x8000", "absurd", "flat", "narrow", "no pixels"],
)
def test_a_bad_picture_is_named(folder: Path, content: bytes, rule: str) -> None:
    (folder / "images" / "bad.png").write_bytes(content)
    (fault,) = faults(write(folder, {**GOOD, "target": "images/bad.png"}))[1:]
    assert 'edits.jsonl:1: target = "images/bad.png": ' in fault
    assert rule in fault


def test_a_cut_picture_is_named(folder: Path) -> None:
    picture = folder / "images" / "b.jpg"
    picture.write_bytes(picture.read_bytes()[:-200])
    (fault,) = faults(write(folder, {**GOOD, "source": "images/b.jpg"}))[1:]
    assert "b.jpg" in fault
    assert "not a readable" in fault


def test_a_link_out_of_the_folder_is_named(folder: Path) -> None:
    (folder / "images" / "link.png").symlink_to(folder.parent / "outside.png")
    (fault,) = faults(write(folder, {**GOOD, "source": "images/link.png"}))[1:]
    assert "leaves the folder" in fault


@pytest.mark.parametrize("scheme", ["http", "https", "file", "s3", "gopher"])
@pytest.mark.parametrize("key", ["source", "target"])
def test_an_address_of_a_picture_is_named_as_one_and_not_fetched(folder: Path, key: str, scheme: str) -> None:
    """Otherwise a file could have any host asked that its reader can reach."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(0.2)
        address = f"{scheme}://127.0.0.1:{stranger.getsockname()[1]}/a.png"
        (fault,) = faults(write(folder, {**GOOD, key: address}))[1:]
        assert "an address; download the picture and give its path below the folder" in fault
        with pytest.raises(TimeoutError):
            stranger.accept()


def test_all_faults_of_a_file_come_at_once(folder: Path) -> None:
    path = write(
        folder,
        {**GOOD, "source": "images/none.png", "target": "../outside.png"},
        {**GOOD, "id": "b", "instruction": "", "promt": "x"},
        "{",
        {**GOOD, "id": "c"},
        {**GOOD, "id": "c", "instruction": "Another."},
    )
    heading, *found = faults(path)
    assert "6 faults" in heading
    assert [fault.removeprefix(f"{path}:")[0] for fault in found] == ["1", "1", "2", "2", "3", "5"]


@pytest.mark.parametrize("name", ["none", "none.jsonl", "."])
def test_a_path_without_edits_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(EditLoopError, match=r"no such file|holds no"):
        read_edits(tmp_path / name)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "edits.jsonl").write_text("\n\n")
    with pytest.raises(EditLoopError, match="holds no edits"):
        read_edits(tmp_path / "edits.jsonl")


KEYS = st.sampled_from(["id", "instruction", "source", "task", "target", "candidates", "image", "editor", "other"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("images/a.png"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=6),
    max_leaves=12,
)


@given(line=JSON | st.fixed_dictionaries(dict.fromkeys(("id", "instruction", "source", "candidates"), JSON)))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_gives_rows_or_named_faults(folder: Path, line: Any) -> None:
    path = write(folder, json.dumps(line))
    try:
        rows = read_edits(path)
    except EditLoopError as error:
        rows, named = [], str(error).splitlines()[1:]
    else:
        named = []
        assert [(row.id, row.instruction) for row in rows] == [(line["id"].strip(), line["instruction"].strip())]
    assert all(fault.startswith(f"{path}:1: ") for fault in named)
    assert rows or named


def test_one_source_in_two_files_is_one_task(folder: Path) -> None:
    Image.open(folder / "images" / "a.png").save(folder / "images" / "a.webp", lossless=True)
    (fault,) = faults(write(folder, GOOD, {**GOOD, "id": "b", "source": "images/a.webp"}))[1:]
    assert "edits.jsonl:2: instruction" in fault
    assert "same source and instruction as" in fault


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("images\\a.png", "a Windows path; write / between folders"),
        ("https://pictures.example/a.png?size=3", "an address; download the picture"),
    ],
)
def test_a_path_of_another_system_is_named_as_what_it_is(folder: Path, source: str, rule: str) -> None:
    (fault,) = faults(write(folder, {**GOOD, "source": source}))[1:]
    assert f"edits.jsonl:1: source = {json.dumps(source)}: {rule}" in fault


@pytest.mark.parametrize(("stored", "stated"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_finds_its_file_in_either_unicode_form(folder: Path, stored: str, stated: str) -> None:
    name = "images/k\u00fcche.png"
    (folder / "images" / "a.png").rename(folder / unicodedata.normalize(stored, name))
    (row,) = read_edits(write(folder, {**GOOD, "source": unicodedata.normalize(stated, name)}))
    assert row.source.is_file()


def test_pipes_devices_and_links_among_edits_files_are_refused_without_being_opened(
    folder: Path, tmp_path: Path
) -> None:
    write(folder, GOOD)
    for name, make, rule in (
        ("pipe.jsonl", os.mkfifo, "a pipe, not an edits file"),
        ("zero.jsonl", lambda path: path.symlink_to("/dev/zero"), "leaves the folder"),
        ("elsewhere.jsonl", lambda path: path.symlink_to(tmp_path / "outside.png"), "leaves the folder"),
    ):
        make(folder / name)
        with pytest.raises(EditLoopError, match=rf"{name}: {rule}"):
            read_edits(folder)
        (folder / name).unlink()
    os.mkfifo(folder / "alone")
    with pytest.raises(EditLoopError, match=r"alone: a pipe; give an edits\.jsonl"):
        read_edits(folder / "alone")


def test_lines_of_endless_keys_or_letters_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {f"key {number}": number for number in range(20_000)}
    found = faults(write(folder, {**GOOD, **keys}))
    assert len(found) == 2 + MOST_LINE_FAULTS
    assert "and 19,990 more faults on this line" in found[-1]
    monkeypatch.setattr(edits_file, "LONGEST_LINE", 100)
    with pytest.raises(EditLoopError, match=r"edits\.jsonl:2: more than"):
        read_edits(write(folder, GOOD, {**GOOD, "id": "b", "instruction": "very " * 50}))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@given(name=st.sampled_from(["a.png", "b.jpg"]), place=st.integers(0, 20_000), value=st.binary(max_size=6))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_spoilt_pictures_load_or_are_named(folder: Path, name: str, place: int, value: bytes) -> None:
    content = (folder / "images" / name).read_bytes()
    place %= len(content)
    spoilt = folder / "spoilt"
    spoilt.write_bytes(content[:place] + value + content[place + 1 :])
    try:
        picture = load_image(spoilt)
    except EditLoopError as error:
        picture, named = None, str(error)
    else:
        named = ""
    assert str(spoilt) in named or picture is not None
    assert picture is None or (picture.mode, picture.width * picture.height <= LARGEST_PICTURE) == ("RGB", True)


def test_pictures_come_upright_opaque_and_bounded(tmp_path: Path) -> None:
    half_clear = np.zeros((400, 200, 4), dtype=np.uint8)
    half_clear[:200, :, 3] = 255
    Image.fromarray(half_clear).save(tmp_path / "clear.png")
    upright = load_image(tmp_path / "clear.png", 100)
    assert upright.size == (50, 100)
    assert upright.getpixel((25, 20)) == (0, 0, 0)
    assert upright.getpixel((25, 80)) == (255, 255, 255)
    assert load_image(tmp_path / "clear.png", 1000).size == (200, 400)

    turned = Image.fromarray(half_clear[..., :3])
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held on its side
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").size == (400, 200)

    Image.fromarray(np.full((32, 32), 128 << 8, dtype=np.uint16)).save(tmp_path / "grey16.png")
    assert load_image(tmp_path / "grey16.png").getpixel((0, 0)) == (128, 128, 128)


def test_stand_ins_fill_the_rows_that_want_candidates_and_repeat_exactly(folder: Path, tmp_path: Path) -> None:
    given_row = {
        **GOOD,
        "id": "given",
        "instruction": "Given.",
        "candidates": [{"image": "images/a.png", "editor": "e"}],
    }
    wanting = [{**GOOD, "id": f"w{k}", "instruction": f"Do {k}.", "target": "images/b.jpg"} for k in range(4)]
    edits = write(folder, GOOD, given_row, *wanting)
    add_candidates(edits, tmp_path / "one", seed=3)
    add_candidates(folder, tmp_path / "two", seed=3)
    add_candidates(edits, tmp_path / "other", seed=4)
    digests = [read_manifest(tmp_path / name, check=True)["files"] for name in ("one", "two", "other")]
    assert digests[0] == digests[1] != digests[2]

    alone, kept, *filled = read_edits(tmp_path / "one")
    assert alone.candidates == ()
    assert [editor for _, editor in kept.candidates] == ["e"]
    for row in filled:
        editors = [editor for _, editor in row.candidates]
        assert len(set(editors)) == 3
        assert set(editors) <= STAND_INS.keys()

    edits = write(folder, wanting[2])
    add_candidates(edits, tmp_path / "fewer", seed=3)
    (again,) = read_edits(tmp_path / "fewer")
    assert [image.name for image, _ in again.candidates] == [image.name for image, _ in filled[2].candidates]


def test_stand_ins_fail_each_in_its_own_way() -> None:
    source = np.full((64, 64, 3), 100.0)
    target = source.copy()
    target[16:48, 16:48] = 220.0
    inside = np.zeros((64, 64), dtype=bool)
    inside[16:48, 16:48] = True
    assert changed_region(source, target) == (16, 48, 16, 48)

    def errors(name: str) -> tuple[float, float]:
        edit = STAND_INS[f"stand-in-{name}"](source, target, np.random.default_rng(1))
        error = np.abs(edit - target).mean(axis=2)
        return float(error[inside].mean()), float(error[~inside].mean())

    for name in ("timid", "partial", "idle"):
        within, outside = errors(name)
        assert within > 15, name
        assert outside < 6, name
    for name in ("blunt", "noisy"):
        within, outside = errors(name)
        assert outside > 5, name
        assert within < 60, name
    assert errors("partial")[0] == pytest.approx(60.0)


def test_bad_edits_leave_no_folder_of_stand_ins(folder: Path, tmp_path: Path) -> None:
    write(folder, {**GOOD, "source": "images/none.png"})
    with pytest.raises(EditLoopError):
        add_candidates(folder, tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()


def test_the_documentation_names_every_key_and_shows_a_real_message(folder: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "edits-file.md").read_text()
    (unknown,) = faults(write(folder, {**GOOD, "promt": "Make it red."}))[1:]
    keys = unknown.partition("known are ")[2].split(", ")
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")] == keys
    assert unknown.partition(":1: ")[2] in text
