"""What EditScore learns from: experts' ratings, a teacher's rows; and that it learns it."""

import json
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from editloop.content import read_manifest
from editloop.errors import EditLoopError
from editloop.models.edit_score.answers import ParsedAnswer, parse_answer
from editloop.models.edit_score.judge import EditScoreJudge
from editloop.models.judge_protocol import EditGroup
from editloop.training.edit_score.distillation import import_distillation_rows, read_distillation_rows
from editloop.training.edit_score.sft import answer_loss
from editloop.training.edit_score.targets import Target, targets_from_ratings, training_rows, written_reasoning
from editloop.training.edit_score.training_task import AnswerTrainingTask, read_training_edits
from pipelines.cli import app
from tests.edit_score_models import plain_loss, some_groups, tiny_score

pytestmark = pytest.mark.floats


def test_targets_of_ratings_are_linear_and_say_what_they_mean():
    found = targets_from_ratings(np.array([[1.0, 4.0], [2.5, 1.0], [4.0, 4.0]]), 24)
    assert [one.points for one in found] == [(0, 24, 24, 24), (12, 0, 0, 0), (24, 24, 24, 24)]
    assert (
        written_reasoning(("prompt_following", "consistency"), (0, 25), 25) == "prompt following none, consistency full"
    )


def test_a_taught_answer_is_what_the_parser_wants():
    maker = tiny_score().rows
    target = Target((3, 25, 0, 14), ('It says "red".\nIt <|im_end|> is.', ""))
    for row, points in zip(training_rows(maker, some_groups()[1], [target])[0], ((3, 25), (0, 14)), strict=True):
        assert row.answer[-1] == maker.end
        assert maker.end not in row.answer[:-1]
        found = parse_answer(maker.text(row.answer), 25)
        assert isinstance(found, ParsedAnswer)
        assert found.points == points
    assert "naturalness none" in found.reasoning
    digits = training_rows(tiny_score(reasoning=False).rows, some_groups()[1], [target])[0]
    assert [maker.text(row.answer) for row in digits] == ["1", "5", "0", "3"]


def teachers_file(folder, rows=None):
    """Three tasks: one that nobody achieves, one that tells nothing apart, one good."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "1", "2"):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    points = {"a": ([2, 25], [9, 20]), "b": ([20, 20], [20, 20]), "c": ([5, 20], [25, 20])}
    if rows is None:
        rows = [
            {
                "key": key,
                "instruction": f"change {key}",
                "source": f"{key}.png",
                "edit": f"{edit}.png",
                "editor": "e",
                "sc": points[key][0],
                "pq": points[key][1],
                "reasoning": {"sc": "seen\u2028it"},
            }
            for key in points
            for edit in "12"
        ]
        rows[-1] |= {"sc": [24, 24], "reasoning": "one text"}
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return folder / "rows.jsonl"


def test_a_taught_task_of_several_sources_is_trained_on_with_all_of_them(tmp_path):
    file = teachers_file(tmp_path / "given")
    rows = [json.loads(line) | {"references": ["b.png", "1.png"]} for line in file.read_text().split("\n")]
    teachers_file(tmp_path / "given", rows[4:])
    import_distillation_rows(file, tmp_path / "taught")
    split = next(one for one in ("train", "validation") if read_distillation_rows(tmp_path / "taught", one))
    group, _ = read_training_edits(tmp_path / "taught", split, 25).edit(0, 0)
    given = [np.asarray(Image.open(tmp_path / "given" / name)) for name in ("c.png", "b.png", "1.png")]
    for found, picture in zip((group.source, *group.references), given, strict=True):
        assert np.array_equal(found, picture)
    teachers_file(tmp_path / "given", [rows[4], rows[5] | {"references": ["1.png", "b.png"]}])
    with pytest.raises(EditLoopError, match="another source, reference or instruction"):
        import_distillation_rows(file, tmp_path / "turned")
    teachers_file(tmp_path / "given", [rows[4] | {"references": ["none.png"]}])
    with pytest.raises(EditLoopError, match=r"references\[0\] .*none"):
        import_distillation_rows(file, tmp_path / "absent")


def test_groups_that_teach_nothing_are_dropped_and_counted(tmp_path):
    file = teachers_file(tmp_path / "given")
    reply = CliRunner().invoke(
        app,
        [
            "teacher",
            "import",
            str(file),
            "--out",
            str(tmp_path / "taught"),
            "--least-best",
            "4",
            "--least-spread",
            "0.5",
        ],
        catch_exceptions=False,
    )
    assert reply.exit_code == 0
    counts = read_manifest(tmp_path / "taught", check=True)["facts"]["counts"]
    assert counts == {
        "rows": 6,
        "groups": 3,
        "dropped: no editor achieves": 1,
        "dropped: tells nothing apart": 1,
        "kept groups": 1,
        "kept rows": 2,
    }
    rows = [
        row
        for split in ("train", "validation")
        for group in read_distillation_rows(tmp_path / "taught", split)
        for row in group
    ]
    assert [(row.sc, row.pq) for row in rows] == [((5, 20), (25, 20)), ((24, 24), (25, 20))]
    assert [row.reasons for row in rows] == [("seen\u2028it", ""), ("one text", "")]
    everything = import_distillation_rows(file, tmp_path / "all")
    assert (everything["kept groups"], everything["kept rows"]) == (3, 6)
    with pytest.raises(EditLoopError, match="none left"):
        import_distillation_rows(file, tmp_path / "none", least_best=10)


def test_every_faulty_row_is_named_by_its_line_and_nothing_is_written(tmp_path):
    good = {
        "key": "k",
        "instruction": "i",
        "source": "a.png",
        "edit": "1.png",
        "editor": "e",
        "sc": [1, 2],
        "pq": [3, 4],
    }
    wrong = [
        {"sc": [1]},
        {"sc": [1, 26]},
        {"pq": [1, "2"]},
        {"pq": [-1, 2]},
        {"edit": "no.png"},
        {"edit": "../x.png"},
        {"source": "b.png", "edit": "2.png"},
        {"edit": "1.png"},
        {"editor": ""},
        {"more": 1},
        {"sc": [True, 1]},
    ]
    file = teachers_file(tmp_path / "given", [good, *({**good, "key": "k", **one} for one in wrong)])
    with file.open("a") as stream:
        stream.write("\nno json\n" + json.dumps(good)[:-1] + ', "sc": [NaN, 1]}')
    with pytest.raises(EditLoopError) as caught:
        import_distillation_rows(file, tmp_path / "taught")
    told = str(caught.value)
    for line in range(2, 2 + len(wrong) + 2):
        assert f"rows.jsonl:{line}: " in told, (line, told)
    assert "rows.jsonl:1:" not in told
    assert "judged already at line 1" in told
    assert "above the top, 25" in told
    assert not (tmp_path / "taught").exists()


def test_a_lesson_weighs_rows_by_their_tokens_however_they_are_batched(tmp_path):
    import_distillation_rows(teachers_file(tmp_path / "given"), tmp_path / "taught")
    model = tiny_score()
    lesson = AnswerTrainingTask(model, {"train": read_training_edits(tmp_path / "taught", "train", 25)})
    count = lesson.count("train")
    assert count % 2 == 0
    assert count == 2 * sum(edits for _, edits in lesson.splits["train"].names())

    def mean(parts):
        batches = [lesson.batch("train", part) for part in parts]
        whole = sum(one.weight for one in batches)
        return sum(lesson.loss(model, one).item() * one.weight / whole for one in batches)

    units = list(range(count))
    rows = []
    for group, (_, edits) in enumerate(lesson.splits["train"].names()):
        for edit in range(edits):
            rows += training_rows(
                model.rows, *[[one] if i else one for i, one in enumerate(lesson.splits["train"].edit(group, edit))]
            )[0]
    plain = sum(plain_loss(model, row).item() for row in rows) / sum(len(row.answer) for row in rows)
    assert mean([units]) == pytest.approx(plain, rel=2e-5)
    assert mean([units[:1], units[1:]]) == pytest.approx(plain, rel=2e-5)
    batch = lesson.batch("train", units)
    with torch.no_grad():
        sums = {name: float(value) for name, value in lesson.measure(model, batch).items()}
    assert lesson.figures(sums)["loss"] == pytest.approx(plain, rel=2e-5)
    assert len(lesson.batch("train", [0, 1]).tensors["image_grid_thw"]) == 2  # SC and PQ of one edit share its picture
    assert lesson.name("train", 1).endswith("edit 0, answer 1")
    with pytest.raises(EditLoopError, match="go to 25"):
        read_training_edits(tmp_path / "taught", "train", 10)


def coloured(rng, count):
    """Edits that are all red, which was asked for, or all blue."""
    right = rng.integers(0, 2, count)
    edits = [np.full((16, 16, 3), (230, 20, 20) if one else (20, 20, 230), np.uint8) for one in right]
    return EditGroup("red", np.full((16, 16, 3), 128, np.uint8), edits), right


@pytest.mark.parametrize("reasoning", [True, False])
def test_what_is_learnt_is_judged(reasoning, tmp_path):
    """Learns to tell two colours apart from a few lessons, and a saved model judges the same."""
    model = tiny_score(reasoning=reasoning, pictures="paired", max_new_tokens=60, top=9)
    for parameter in model.parameters():
        parameter.data.div_(3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    rng = np.random.default_rng(0)
    steps = 100 if reasoning else 40
    for step in range(steps):
        group, right = coloured(rng, 6)
        targets = [Target((9, 9, 7, 7), ("y", "y")) if one else Target((0, 2, 2, 2), ("n", "n")) for one in right]
        rows = [row for one in training_rows(model.rows, group, targets) for row in one]
        batch = model.collate(rows).tensors
        answer_loss(model(batch), batch["targets"]).backward()
        optimiser.param_groups[0]["lr"] = 4e-3 * min(1, 2 * (1 - step / steps))
        optimiser.step()
        optimiser.zero_grad()
    model.save(tmp_path / "model", {})
    judge = EditScoreJudge.load(tmp_path / "model", device="cpu", passes=3)
    group, right = coloured(rng, 5)
    (scores,) = judge.judge([group])
    assert not any(score.missing for score in scores), scores
    for score, one in zip(scores, right, strict=True):
        assert (score.overall > 6) if one else (score.overall < 2)
        assert score.reward == pytest.approx(score.overall / 10)
    split = EditScoreJudge(judge.model, judge.version, tokens_at_once=1).judge([group])[0]
    for one, other in zip(split, scores, strict=True):
        assert one.overall == pytest.approx(other.overall, abs=1e-4)


def test_answers_that_cannot_be_read_are_missing():
    model = tiny_score(passes=3)
    judge = EditScoreJudge(model, "v")
    good, bad = '{"reasoning": "", "score": [10, 20]}', "no"
    asked = model.rows.ask(some_groups()[1])
    for sc, missing in (([good] * 3, False), ([bad, good, good], False), ([bad, bad, good], True)):
        with patch.object(judge, "_answers_to", lambda batch, numbers, sc=sc: [sc, [good] * 3]):
            (score,) = judge._score(asked)
        assert bool(score.missing) == missing, score
