"""Published prompts of online RL as an edits folder: what comes in, what is left out, and a stopped import."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from editloop.content import read_manifest, sha256_file
from editloop.data import published_edits, row_import
from editloop.data.data_origin import origin_of
from editloop.data.edits_file import read_edits
from editloop.data.picture_file import file_picture_sha256
from editloop.data.published_edits import import_published_edits
from editloop.errors import EditLoopError
from pipelines.cli import app

SUITES = Path(__file__).parents[1] / "parity" / "suites"
RL_DATA, EDIT_R1 = SUITES / "editscore-rl-data", SUITES / "edit-r1"
"""In the published layouts; the rows and pictures are ours."""


def write_data(folder: Path, rows: list[dict[str, Any]], pictures: int = 4) -> Path:
    """A folder in EditScore-RL-Data's layout."""
    (folder / "images").mkdir(parents=True)
    for number in range(pictures):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.jpg", quality=95)
    (folder / "rl.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def row(number: int, picture: int = 0, **more: Any) -> dict[str, Any]:
    return {"task_type": "style", "instruction": f"As style {number}", "input_images": [f"images/{picture}.jpg"]} | more


def test_the_published_layout_becomes_edits_of_the_kinds_that_are_asked_for(tmp_path: Path) -> None:
    report = import_published_edits(RL_DATA, "editscore-rl", tmp_path / "all")
    assert report == (5, 3, {}, ())
    rows = read_edits(tmp_path / "all")
    assert [(edit.task, edit.instruction) for edit in rows][:2] == [
        ("background", "Put a beach behind it"),
        ("subject_remove", "Take the ball away"),
    ]
    for edit, name in zip(rows, ("0", "1", "2", "0", "1"), strict=True):
        assert file_picture_sha256(edit.source) == file_picture_sha256(RL_DATA / "images" / f"{name}.png")
    some = import_published_edits(RL_DATA, "editscore-rl", tmp_path / "s", leave_out=["ps_human", "text_change"])
    assert (some.rows, some.left_out, some.skipped) == (3, {"ps_human": 1, "text_change": 1}, ())
    assert [edit.task for edit in read_edits(tmp_path / "s")] == ["background", "subject_remove", "style"]


def test_further_input_images_are_references(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", [row(0, input_images=["images/2.jpg", "images/0.jpg", "images/3.jpg"]), row(1)])
    assert import_published_edits(data, "editscore-rl", tmp_path / "e")[:2] == (2, 3)
    first, second = read_edits(tmp_path / "e")
    names = {file_picture_sha256(data / "images" / f"{number}.jpg"): number for number in range(4)}
    assert [names[file_picture_sha256(path)] for path in (first.source, *first.references)] == [2, 0, 3]
    assert second.references == ()
    assert len((tmp_path / "e" / "SHA256SUMS").read_text().splitlines()) == 4


def test_edit_r1s_prompts_are_imported_a_file_at_a_time(tmp_path: Path) -> None:
    report = import_published_edits(EDIT_R1 / "train_metadata.jsonl", "edit-r1", tmp_path / "e")
    assert report == (2, 2, {}, ())
    assert {edit.instruction for edit in read_edits(tmp_path / "e")} == {"Make it blue"}
    with pytest.raises(EditLoopError, match=r"holds test_metadata\.jsonl, train_metadata\.jsonl; give one of them"):
        import_published_edits(EDIT_R1, "edit-r1", tmp_path / "f")


def test_the_origin_names_every_file_that_was_read(tmp_path: Path) -> None:
    import_published_edits(RL_DATA / "rl.jsonl", "editscore-rl", tmp_path / "e", leave_out=["text_change"])
    manifest = read_manifest(tmp_path / "e", check=True)
    origin = origin_of(manifest)
    assert origin is not None
    assert (origin.format, origin.files, origin.pictures) == (
        "editscore-rl",
        {"rl.jsonl": sha256_file(RL_DATA / "rl.jsonl")},
        2,
    )
    lines = (tmp_path / "e" / "SHA256SUMS").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256((RL_DATA / name).read_bytes()).hexdigest()}  {name}"
        for name in ("images/0.png", "images/1.png", "rl.jsonl")
    ]
    forged = json.loads(json.dumps(manifest))
    forged["facts"]["origin"]["files"]["rl.jsonl"] = "0" * 64
    with pytest.raises(EditLoopError, match="another origin"):
        origin_of(forged)
    forged = json.loads(json.dumps(manifest))
    forged["files"]["SHA256SUMS"] = "0" * 64
    with pytest.raises(EditLoopError, match="not the list of files"):
        origin_of(forged)
    assert origin_of({"facts": {}, "files": {}}) is None


FAULTS = {
    "no instruction": ({"instruction": None}, "instruction: neither there nor in meta_data"),
    "blank instruction": ({"instruction": "  "}, "instruction: empty"),
    "long instruction": ({"instruction": "x" * 2001}, r"instruction: 2,001 characters; at most 2,000"),
    "no pictures": ({"input_images": []}, "input_images: 0 pictures; an edit is made of 1 to 4"),
    "too many pictures": ({"input_images": ["images/0.jpg"] * 5}, "input_images: 5 pictures"),
    "a picture twice": (
        {"input_images": ["images/0.jpg"] * 2},
        r'references\[0\] = "images/0\.jpg": the same picture as \'images/0\.jpg\'',
    ),
    "pictures missing": ({"input_images": None}, "input_images = 'None'"),
    "no such file": ({"input_images": ["images/9.jpg"]}, 'source = "images/9.jpg": no such file below'),
    "outside": ({"input_images": ["../outside.png"]}, r'source = "\.\./outside\.png": leaves the folder'),
    "absolute": ({"input_images": ["/etc/passwd"]}, "leaves the folder"),
    "an address": ({"input_images": ["https://example.org/a.png"]}, "an address; download the picture"),
    "a Windows path": ({"input_images": ["images\\0.jpg"]}, "a Windows path; write / between folders"),
    "a path of two lines": ({"input_images": ["images/a\nb.jpg"]}, "control characters or a backslash in a path"),
    "no picture": ({"input_images": ["rl.jsonl"]}, "not a readable PNG, JPEG, WebP or AVIF picture"),
    "a folder": ({"input_images": ["images"]}, "no such file below"),
    "the same edit": (
        {"instruction": "As style 0", "input_images": ["images/0.jpg"]},
        "same sources and instruction as",
    ),
    "long kind": ({"task_type": "x" * 201}, "kind of edit: 201 characters; at most 200"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_row_is_left_out_and_named_or_refused(tmp_path: Path, fault: str) -> None:
    change, words = FAULTS[fault]
    Image.new("RGB", (20, 20)).save(tmp_path / "outside.png")
    data = write_data(tmp_path / "data", [row(0), row(1, 1) | change, row(2, 2)])
    shutil.copyfile(data / "images" / "1.jpg", data / "images" / "a\nb.jpg")
    report = import_published_edits(data, "editscore-rl", tmp_path / "e")
    assert (report.rows, len(report.skipped)) == (2, 1)
    assert (tmp_path / "e" / "skipped.txt").read_text() == f"{report.skipped[0]}\n"
    assert len(read_edits(tmp_path / "e")) == 2
    with pytest.raises(
        EditLoopError, match=rf"1 row with faults; nothing was written\.\n.*rl\.jsonl: line 2: .*{words}"
    ):
        import_published_edits(data, "editscore-rl", tmp_path / "e2", strict=True)
    assert not (tmp_path / "e2").exists()
    assert not list((tmp_path / ".unfinished").iterdir())


def test_an_instruction_may_stand_in_meta_data_alone(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", [row(0, instruction="", meta_data='{"instruction": "Make it blue"}')])
    import_published_edits(data, "editscore-rl", tmp_path / "e")
    assert read_edits(tmp_path / "e")[0].instruction == "Make it blue"


def test_an_import_that_was_stopped_goes_on_and_decodes_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(number, number % 30, task_type="other" if number % 7 == 0 else "style") for number in range(120)]
    rows[50] = row(50, 99)
    data = write_data(tmp_path / "data", rows, pictures=30)
    whole = import_published_edits(data, "editscore-rl", tmp_path / "whole", leave_out=["other"])
    stored: list[str] = []
    store = row_import.store_png

    def stops(image: Image.Image, folder: Path) -> str:
        stored.append(store(image, folder))
        if len(stored) == 20:
            raise KeyboardInterrupt
        return stored[-1]

    monkeypatch.setattr(row_import, "store_png", stops)
    with pytest.raises(KeyboardInterrupt):
        import_published_edits(data, "editscore-rl", tmp_path / "e", leave_out=["other"])
    assert not (tmp_path / "e").exists()
    (journal,) = (tmp_path / ".unfinished").glob("*/journal.jsonl")
    assert 0 < journal.read_bytes().count(b"\n") < 100
    with journal.open("ab") as stream:
        stream.write(b'["rl.jsonl", "line 9", ["cut o')
    with monkeypatch.context() as patched:
        patched.setattr(published_edits, "write_origin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            import_published_edits(data, "editscore-rl", tmp_path / "e", leave_out=["other"])
    before = len(stored)
    assert import_published_edits(data, "editscore-rl", tmp_path / "e", leave_out=["other"]) == whole
    assert len(stored) == before, "every row was in the journal"
    assert read_manifest(tmp_path / "e")["files"] == read_manifest(tmp_path / "whole")["files"]
    assert not list((tmp_path / ".unfinished").iterdir())


@pytest.mark.timeout(120)
def test_an_import_that_was_killed_goes_on_and_ends_as_one_in_one_go(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", [row(number, number % 200) for number in range(2000)], pictures=200)
    whole = import_published_edits(data, "editscore-rl", tmp_path / "whole")
    command = [sys.executable, "-c", "from pipelines.cli import app; app()", "edits", "import", str(data)]
    command += ["--format", "editscore-rl", "--out", str(tmp_path / "e")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done = b""
    while process.poll() is None and done.count(b"\n") < 100:
        done = b"".join(path.read_bytes() for path in (tmp_path / ".unfinished").glob("*/journal.jsonl"))
    process.kill()
    process.wait()
    assert not (tmp_path / "e").exists(), "killed before its end"
    assert import_published_edits(data, "editscore-rl", tmp_path / "e") == whole
    assert read_manifest(tmp_path / "e")["files"] == read_manifest(tmp_path / "whole")["files"]


def test_other_choices_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shutil.copytree(RL_DATA, tmp_path / "data")
    with monkeypatch.context() as patched:
        patched.setattr(published_edits, "write_origin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            import_published_edits(data, "editscore-rl", tmp_path / "e")
    assert import_published_edits(data, "editscore-rl", tmp_path / "e", leave_out=["style"]).rows == 4


def test_the_command_prints_what_came_in_and_what_was_left_out(tmp_path: Path) -> None:
    arguments = ["edits", "import", str(RL_DATA), "--format", "editscore-rl", "--out", str(tmp_path / "e")]
    done = CliRunner().invoke(app, [*arguments, "--leave-out", "ps_human"], catch_exceptions=False)
    assert "4 edits of 3 pictures" in done.output
    assert "left out as asked: 1 of kind ps_human" in done.output
    with pytest.raises(EditLoopError, match=r"no edit of kind 'ps-human' to leave out; .* Did you mean ps_human"):
        CliRunner().invoke(app, [*arguments, "--leave-out", "ps-human"], catch_exceptions=False)
    with pytest.raises(EditLoopError, match="5 rows with faults; nothing was written"):
        CliRunner().invoke(app, [*arguments[:4], "edit-r1", *arguments[5:]], catch_exceptions=False)
