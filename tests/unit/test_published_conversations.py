"""EditScore-Reward-Data as published: conversations become rows that EditScore learns, and bad ones are left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from editloop.content import read_manifest, write_manifest
from editloop.data import row_import
from editloop.data.data_origin import origin_of
from editloop.data.picture_file import file_picture_sha256
from editloop.errors import EditLoopError
from editloop.models.edit_score.answers import ParsedAnswer, parse_answer
from editloop.training.edit_score import published_conversations
from editloop.training.edit_score.distillation import DistillationRow, read_distillation_rows
from editloop.training.edit_score.published_conversations import Wording, import_conversations
from editloop.training.edit_score.training_task import AnswerTrainingTask, read_training_edits
from pipelines.cli import app
from tests.edit_score_models import tiny_score

PUBLISHED = Path(__file__).parents[1] / "parity" / "suites" / "editscore-reward-data"
"""Three conversations of ours in the published layout, with another wording than the published one."""
OURS = Wording("wish:")


def asked(number: int, images: list[str], answer: str | None = None, **more: Any) -> dict[str, Any]:
    """A conversation about one picture or two."""
    marks = "<image>" * len(images)
    prompt = f"{marks}Two pictures.\n\nEditing instruction: Make cup {number} red.\n" if images[1:] else f"{marks}One."
    answer = answer or json.dumps({"reasoning": f"Seen {number}.", "score": [number % 26, 20]})
    turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "images": images} | more


def write_data(folder: Path, rows: list[dict[str, Any]], pictures: int = 6) -> Path:
    (folder / "images").mkdir(parents=True)
    for number in range(pictures):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    (folder / "reward.json").write_text(json.dumps(rows))
    return folder


def rows_of(folder: Path) -> list[DistillationRow]:
    groups = [group for split in ("train", "validation") for group in read_distillation_rows(folder, split)]
    return [row for group in groups for row in group]


def test_the_published_layout_becomes_rows_of_one_question_each(tmp_path: Path) -> None:
    report = import_conversations(PUBLISHED, tmp_path / "t", wording=OURS)
    assert report == (2, 1, 4, ())
    name = [file_picture_sha256(PUBLISHED / "images" / f"{number}.png") for number in range(4)]
    rows = {(row.source, row.edit, row.sc, row.pq): row for row in rows_of(tmp_path / "t")}
    assert set(rows) == {
        (name[0], name[1], (20.0, 18.0), None),
        (name[0], name[1], None, (15.0, 22.0)),
        (name[2], name[3], (3.0, 25.0), None),
    }
    assert sorted(row.instruction for row in rows.values()) == ["", "paint it red", "remove the ball"]
    assert {row.reasons for row in rows.values()} == {("ours", ""), ("", "ours")}
    assert {row.key for row in rows.values()} == {name[0], name[2]}
    manifest = read_manifest(tmp_path / "t", check=True)
    assert manifest["facts"]["counts"] == {"sc": 2, "pq": 1}
    origin = origin_of(manifest)
    assert origin is not None
    assert (list(origin.files), origin.pictures) == (["reward.json"], 4)


def test_the_published_wording_is_looked_for_before_anything_is_read(tmp_path: Path) -> None:
    told = r"none of 2 prompts about two pictures has 'Editing instruction:' once; .*paint it red.*--instruction-after"
    with pytest.raises(EditLoopError, match=told):
        import_conversations(PUBLISHED, tmp_path / "t")
    assert not list(tmp_path.iterdir())


def test_an_instruction_is_what_stands_between_two_texts() -> None:
    wording = Wording("It was told: ", "\nJudge it.")
    assert wording.instruction("<image><image>It was told: a\nb \nJudge it.") == "a\nb"
    assert wording.instruction("It was told: a\nJudge it. Please.\nJudge it.") == "a\nJudge it. Please."
    assert wording.instruction("It was told: a") is None
    assert wording.instruction("It was told: It was told: a\nJudge it.") is None
    assert Wording("told:").instruction("told: paint <image>it ") == "paint it"


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "an answer without scores": (asked(1, ["images/0.png", "images/1.png"], "Fine."), "answer: unparsable"),
    "points above the top": (asked(1, ["images/1.png"], '{"score": [26, 3]}'), "answer: out of range; two points of 0"),
    "three pictures": (asked(1, ["images/0.png"] * 3), "images: 3 pictures; SC shows source and edit"),
    "no pictures": (asked(1, []), "images: 0 pictures"),
    "a mark too few": (
        asked(1, ["images/0.png", "images/1.png"]) | {"images": ["images/0.png"]},
        "2 marks <image> for 1",
    ),
    "no answer": (asked(1, ["images/1.png"], conversations=[{"from": "human", "value": "<image>"}]), "human speak"),
    "another order": (
        asked(1, ["images/1.png"], conversations=[{"from": name, "value": "<image>"} for name in ("gpt", "human")]),
        "gpt and human speak",
    ),
    "two turns": (
        asked(1, ["images/1.png"], conversations=[{"from": n, "value": "<image>"} for n in ("human", "gpt", "human")]),
        "human and gpt and human speak",
    ),
    "no turns": ({"images": ["images/0.png"]}, "conversations: field required"),
    "no marker": (
        asked(
            1,
            ["images/0.png", "images/1.png"],
            conversations=[{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "[1, 2]"}],
        ),
        "prompt: 'Editing instruction:' 0 times",
    ),
    "no such file": (asked(1, ["images/9.png"]), 'images = "images/9.png": no such file below'),
    "outside": (asked(1, ["../outside.png"]), "leaves the folder"),
    "an address": (asked(1, ["https://example.org/a.png"]), "an address; download the picture"),
    "a Windows path": (asked(1, ["images\\1.png"]), "a Windows path"),
    "no picture": (asked(1, ["reward.json"]), 'images = "reward.json": not a readable PNG'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_row_is_left_out_and_named_or_refused(tmp_path: Path, fault: str) -> None:
    row, words = FAULTS[fault]
    Image.new("RGB", (20, 20)).save(tmp_path / "outside.png")
    good = [asked(2, ["images/0.png", "images/1.png"]), asked(3, ["images/1.png"])]
    data = write_data(tmp_path / "data", [good[0], row, good[1]])
    report = import_conversations(data, tmp_path / "t")
    assert (report.sc, report.pq, len(report.skipped)) == (1, 1, 1)
    assert (tmp_path / "t" / "skipped.txt").read_text() == f"{report.skipped[0]}\n"
    with pytest.raises(EditLoopError, match=rf"1 row with faults; nothing was written\.\n.*json: row 2: .*{words}"):
        import_conversations(data, tmp_path / "u", strict=True)
    assert not (tmp_path / "u").exists()


def test_an_import_that_was_stopped_ends_as_one_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        asked(number, [f"images/{number % 20}.png", f"images/{20 + number % 20}.png"][number % 2 :])
        for number in range(200)
    ]
    rows[70] = asked(70, ["images/99.png"])
    data = write_data(tmp_path / "data", rows, pictures=40)
    whole = import_conversations(data, tmp_path / "whole")
    stored: list[str] = []
    store = row_import.store_png

    def stops(image: Image.Image, folder: Path) -> str:
        stored.append(store(image, folder))
        if len(stored) == 25:
            raise KeyboardInterrupt
        return stored[-1]

    monkeypatch.setattr(row_import, "store_png", stops)
    with pytest.raises(KeyboardInterrupt):
        import_conversations(data, tmp_path / "t")
    with monkeypatch.context() as patched:
        patched.setattr(published_conversations, "_taught_row", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            import_conversations(data, tmp_path / "t")
    assert not (tmp_path / "t").exists()
    before = len(stored)
    assert import_conversations(data, tmp_path / "t") == whole
    assert len(stored) == before
    assert read_manifest(tmp_path / "t")["files"] == read_manifest(tmp_path / "whole")["files"]
    assert not list((tmp_path / ".unfinished").iterdir())


@pytest.mark.floats
@pytest.mark.parametrize("reasoning", [True, False])
def test_only_the_question_that_was_answered_is_learnt(tmp_path: Path, reasoning: bool) -> None:
    pictures = [["images/0.png", "images/1.png"], ["images/1.png"], ["images/4.png"]]
    data = write_data(tmp_path / "data", [asked(number + 3, names) for number, names in enumerate(pictures)])
    import_conversations(data, tmp_path / "t")
    model = tiny_score(reasoning=reasoning)
    edits = {split: read_training_edits(tmp_path / "t", split, 25) for split in ("train", "validation")}
    task = AnswerTrainingTask(model, edits)
    units = [(split, unit) for split in edits for unit in range(task.count(split))]
    assert len(units) == (3 if reasoning else 6)
    answers = []
    for split, unit in units:
        batch = task.batch(split, [unit])
        answers.append(model.rows.text(batch.tensors["targets"].tolist()))
        pictures_shown = len(batch.tensors["image_grid_thw"])
        assert pictures_shown == (2 if "Seen 3." in answers[-1] else 1) or not reasoning
    if reasoning:
        parsed = [parse_answer(answer, 25) for answer in answers]
        assert sorted(one for one in parsed if isinstance(one, ParsedAnswer)) == [
            (f"Seen {number}.", (float(number), 20.0)) for number in (3, 4, 5)
        ]
    else:
        assert sorted(answers) == ["1", "1", "1", "4", "4", "4"]
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    split = "train" if task.count("train") else "validation"
    batch = task.batch(split, range(task.count(split)))
    losses = []
    for _ in range(2):
        loss = task.loss(model, batch)
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[1] < losses[0]


def test_the_command_prints_what_came_in_and_refuses_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "teacher",
        "import",
        str(PUBLISHED / "reward.json"),
        "--format",
        "editscore",
        "--out",
        str(tmp_path / "t"),
    ]
    arguments += ["--instruction-after", "wish:"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "2 answers to SC, 1 to PQ, 4 pictures" in done.output
    publish = ["teacher", "publish", str(tmp_path / "t"), "--version", str(tmp_path / "v.json")]
    monkeypatch.delenv("EDITLOOP_DATASET_REPO", raising=False)
    with pytest.raises(EditLoopError, match="EDITLOOP_DATASET_REPO is not set"):
        CliRunner().invoke(app, publish, catch_exceptions=False)
    write_manifest(tmp_path / "t", {"taught": 3})
    with pytest.raises(EditLoopError, match="names the files it came from"):
        CliRunner().invoke(app, publish, catch_exceptions=False)
    with pytest.raises(EditLoopError, match="--least-best and --least-spread"):
        CliRunner().invoke(app, [*arguments, "--least-best", "5"], catch_exceptions=False)
