import json

import krippendorff
import numpy as np
import pytest
from typer.testing import CliRunner

from annotation.formats.ratings_table import judgements_of_table, read_table, write_judgements
from editloop.data.vocabulary import Candidate, EditTask
from editloop.errors import EditLoopError
from pipelines.cli import app, main
from tests.generated_campaign import Character, campaign


def agreement(*arguments):
    reply = CliRunner().invoke(app, ["agreement", *map(str, arguments)], catch_exceptions=False)
    assert reply.exit_code == 0
    return reply.output


def table(path, text):
    path.write_text(text)
    return path


def test_agreement_of_a_file_is_the_librarys(tmp_path):
    """Rows in any order, empty cells, an axis with a name of its own."""
    rng = np.random.default_rng(0)
    ratings = np.clip(rng.integers(1, 6, 30) + rng.integers(-1, 2, (4, 30)), 1, 5).astype(float)
    ratings[rng.random(ratings.shape) < 0.25] = np.nan
    lines = [
        f"photo {item},rater-{rater},{'' if np.isnan(level) else int(level)},{rng.integers(2)}"
        for (rater, item), level in np.ndenumerate(ratings)
    ]
    rng.shuffle(lines)
    file = table(tmp_path / "old.csv", "\n".join(["item,rater,beauty,kind", *lines]))
    for level in ("ordinal", "interval", "nominal"):
        found = json.loads(agreement(file, "--level", level, "--json"))["axes"]
        assert list(found) == ["beauty", "kind"]
        assert found["beauty"]["alpha"] == pytest.approx(krippendorff.alpha(ratings, level_of_measurement=level))
        assert found["beauty"]["ci95"][0] < found["beauty"]["alpha"] < found["beauty"]["ci95"][1]
        assert found["beauty"]["items"] == ((~np.isnan(ratings)).sum(axis=0) > 1).sum()
        assert found["beauty"]["raters"] == 4
    assert "beauty" in agreement(file)


def test_names_are_compared_at_nominal_level_only(tmp_path):
    file = table(tmp_path / "t.csv", "item,rater,animal\n1,a,cat\n1,b,cat\n2,a,dog\n2,b,cow\n")
    found = json.loads(agreement(file, "--level", "nominal", "--json"))["axes"]["animal"]
    wanted = krippendorff.alpha([["cat", "dog"], ["cat", "cow"]], level_of_measurement="nominal")
    assert found["alpha"] == pytest.approx(wanted)
    with pytest.raises(EditLoopError, match=r"t\.csv:2: animal = 'cat': not a number"):
        read_table(file)


def test_degenerate_tables_are_said_not_crashed_on(tmp_path):
    alone = table(tmp_path / "alone.csv", "item,rater,if\n1,anna,3\n2,anna,4\n")
    equal = table(tmp_path / "equal.csv", "item,rater,if\n1,a,3\n1,b,3\n2,a,3\n2,b,3\n")
    empty = table(tmp_path / "empty.csv", "item,rater,if\n")
    apart = table(tmp_path / "apart.csv", "item,rater,if\n1,a,3\n2,b,4\n")
    for file, note in (
        (alone, "one rater"),
        (equal, "is 3"),
        (empty, "no ratings"),
        (apart, "no item was rated by two"),
    ):
        found = json.loads(agreement(file, "--json"))["axes"]["if"]
        assert (found["alpha"], found["ci95"]) == (None, None)
        assert note in found["note"]
        assert "undefined" in agreement(file)


def test_every_fault_is_told_with_its_line_at_once(tmp_path):
    file = table(
        tmp_path / "bad.csv", "item,rater,if\n1,a,3\n1,a,4\n2,,3\n,b,3\n3,a,good\n4,a,nan\n5,a\n6,a,inf\n7,a,2\n"
    )
    with pytest.raises(EditLoopError) as caught:
        read_table(file)
    said = str(caught.value)
    for line, word in ((3, "second time"), (4, "rater is empty"), (5, "item is empty"), (6, "'good'"), (7, "'nan'")):
        assert any(f"bad.csv:{line}:" in one and word in one for one in said.splitlines()), (line, said)
    assert "bad.csv:8: 2 cells" in said
    assert "bad.csv:9: if = 'inf'" in said
    assert "7 faults" in said


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("item|rater|if\n1|a|3\n", "no column 'item'"),
        ("item,if\n1,3\n", "no column 'rater'"),
        ("item,rater\n1,a\n", "no column of ratings"),
        ("item,rater,if,if\n1,a,3,3\n", "stands twice"),
        ("item,rater,,if\n1,a,3,\n", "has no name"),
        ("", "no column 'item'"),
        ('item,rater,if\n1,"a,3\n', "not closed"),
    ],
)
def test_a_file_that_is_no_table_says_what_is_needed(tmp_path, text, word):
    with pytest.raises(EditLoopError, match=word):
        read_table(table(tmp_path / "t.csv", text))


def test_a_missing_file_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["editloop", "agreement", str(tmp_path / "none.csv")])
    assert main() == 1
    assert "no such file" in capsys.readouterr().err


def test_whole_tasks_are_resampled_where_the_table_knows_them(tmp_path):
    """Candidates of a task that stand and fall together say less than as many on their own."""
    rng = np.random.default_rng(1)
    lines = []
    for task in range(30):
        level = rng.integers(1, 5)
        for candidate in range(6):
            lines += [
                f"{task}/{candidate},{who},{np.clip(level + shift * (task % 3 == 0), 1, 4)},{task}"
                for who, shift in (("a", 0), ("b", 2))
            ]
    with_tasks = table(tmp_path / "with.csv", "\n".join(["item,rater,if,task", *lines]))
    without = table(tmp_path / "without.csv", "\n".join(["item,rater,if", *(one.rpartition(",")[0] for one in lines)]))
    one, other = (json.loads(agreement(file, "--json"))["axes"] for file in (with_tasks, without))
    assert list(one) == ["if"]
    assert one["if"]["alpha"] == pytest.approx(other["if"]["alpha"])
    assert np.ptp(one["if"]["ci95"]) > 1.5 * np.ptp(other["if"]["ci95"])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_judgements_survive_a_table_and_back(tmp_path, ending):
    made = campaign({"anna": Character(), "ben": Character(noise=0.7), "eva": Character()}, tasks=12)
    file = tmp_path / f"ratings.{ending}"
    write_judgements(made.judgements, file)
    back = judgements_of_table(file, made.tasks)
    fields = {"task_id", "candidate_id", "annotator", "instruction_following", "visual_quality", "position", "seconds"}

    def essentials(judgements):
        return sorted(str([one.model_dump(include=fields), one.created_at.isoformat()]) for one in judgements)

    assert essentials(back) == essentials(made.judgements)
    pages = {(one.task_id, one.annotator): one.annotation_id for one in back}
    assert len(set(pages.values())) == len(pages)  # one answer a page and person


def test_judgements_need_known_candidates_and_both_ratings_on_the_scale(tmp_path):
    candidates = tuple(Candidate(candidate_id=name, image="i", editor="e") for name in ("c1", "c2"))
    task = EditTask(task_id="t", name="t", instruction="Edit.", source="s", candidates=candidates)
    file = table(
        tmp_path / "t.csv",
        "item,rater,if,vq\nt/c1,a,4,3\nc2,a,2,2\nt/c9,a,1,1\nx/c1,b,1,1\nc1,b,5,3\nc1,c,3,\nc1,d,2.5,3\nc2,d,,\n",
    )
    with pytest.raises(EditLoopError) as caught:
        judgements_of_table(file, [task])
    said = str(caught.value).splitlines()
    for line, word in ((4, "c9"), (5, "x/c1"), (6, "if = 5"), (7, "vq is empty"), (8, "if = 2.5")):
        assert any(f"t.csv:{line}:" in one and word in one for one in said), (line, said)
    assert len(said) == 6
    file.write_text("item,rater,if,vq\nt/c1,a,4,3\nc2,a,2,2\nc2,d,,\n")
    assert [(one.candidate_id, one.instruction_following) for one in judgements_of_table(file, [task])] == [
        ("c1", 4),
        ("c2", 2),
    ]
