"""Suites in their public formats: what is read, what is refused, and that a picture is read where it lies."""

import json
from pathlib import Path

import numpy as np
import pytest

from editloop.errors import EditLoopError
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.suites.suite import Comparison, decode_picture
from editloop.models.judge_protocol import Picture
from tests.public_suites import (
    cell,
    editscore_row,
    genai_row,
    group_rows,
    put,
    write_aurora,
    write_editscore,
    write_genai,
    write_groups,
    write_imagenhub,
)


def brightness(picture: Picture) -> int:
    return int(picture[8, 8, 0])


def test_editscores_bench_prefers_the_first_edit_on_one_dimension(tmp_path: Path) -> None:
    rows = [
        editscore_row("p", "subject-add", "prompt_following", 90, 10),
        editscore_row("p", "subject-add", "overall", 10, 90),
        editscore_row("q", "compose", "consistency", 60, 40, source=7),
    ]
    write_editscore(tmp_path / "data" / "train-00000-of-00001.parquet", rows)
    suite = open_suite("editscore-bench", tmp_path)
    assert [item.key for item in suite.items] == ["p-1|p-2|prompt_following", "p-1|p-2|overall", "q-1|q-2|consistency"]
    assert [item.slice for item in suite.items] == ["subject-add", "subject-add", "compose"]
    assert [item.axis for item in suite.items] == ["prompt_following", "overall", "consistency"]
    assert all(item.comparisons == (Comparison(item.key, 0, 1, "left"),) for item in suite.items)
    assert [[brightness(decode_picture(edit)) for edit in item.edits] for item in suite.items] == [
        [90, 10],
        [10, 90],
        [60, 40],
    ]
    one, other, last = (item.cluster_name for item in suite.items)
    assert one == other != last, "units of one source picture are one cluster"


@pytest.mark.parametrize("name", ["test.parquet", "data/test-00000-of-00001.parquet", "test/data-00000-of-00001.arrow"])
def test_genai_bench_is_read_from_parquet_and_from_save_to_disk(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    votes = ["leftvote", "rightvote", "tievote", "bothbad_vote", "leftvote"]
    write_genai(tmp_path / name, [genai_row(vote, 40 + n, 50 + n, source=n) for n, vote in enumerate(votes)])
    suite = open_suite("genai-bench", tmp_path)
    assert [one.comparisons[0].label for one in suite.items] == ["left", "right", "tie", "both_bad", "left"]
    assert [one.key for one in suite.items] == ["0", "1", "2", "3", "4"]
    for number in (4, 0, 3):
        item = suite.items[number]
        assert [brightness(decode_picture(edit)) for edit in item.edits] == [40 + number, 50 + number]
        assert item.instruction == f"edit {number}"


def test_the_suites_content_address_is_of_questions_labels_and_bytes_wherever_they_lie(tmp_path: Path) -> None:
    def sha256(folder: str, name: str, vote: str = "leftvote", left: int = 40) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        write_genai(tmp_path / folder / name, [genai_row(vote, left, 50)])
        return open_suite("genai-bench", tmp_path / folder).sha256

    first = sha256("a", "x.parquet")
    assert sha256("b", "data-00000-of-00001.arrow") == first
    assert len({first, sha256("c", "x.parquet", vote="tievote"), sha256("d", "x.parquet", left=41)}) == 3


def test_two_splits_are_not_mixed(tmp_path: Path) -> None:
    for split in ("test", "test_v1"):
        write_genai(tmp_path / f"{split}-00000-of-00001.parquet", [genai_row("leftvote", 1, 2)])
    with pytest.raises(EditLoopError, match=r"several splits, test, test_v1; give one, as --data .*/test"):
        open_suite("genai-bench", tmp_path)
    assert len(open_suite("genai-bench", tmp_path / "test_v1").items) == 1
    assert len(open_suite("genai-bench", tmp_path / "test-00000-of-00001.parquet").items) == 1


def test_json_rows_name_their_pictures_by_paths(tmp_path: Path) -> None:
    row = {
        "id": "first",
        "source_image": put(tmp_path, "in.png", 100),
        "left_output_image": put(tmp_path, "a.png", 20),
        "right_output_image": put(tmp_path, "b.png", 30),
        "instruct_prompt": "edit",
        "vote_type": "tievote",
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = open_suite("genai-bench", tmp_path).items
    assert (item.key, item.comparisons[0].label) == ("first", "tie")
    for path in ("/etc/hostname", "../a.png", "c.png"):
        (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"left_output_image": path}) + "\n")
        with pytest.raises(EditLoopError, match="row 0 left_output_image"):
            open_suite("genai-bench", tmp_path)


def test_editrewards_bench_gathers_groups_from_their_comparisons(tmp_path: Path) -> None:
    rows = [
        *group_rows("g3", "C>A>B", [30, 20, 40]),
        *group_rows("g2", "A=B=Bad", [5, 6], source=1),
        *group_rows("g4", "D>C>B>A", [1, 2, 3, 4], source=2),
        *group_rows("h2", "A=B=Good", [7, 8], source=3),
    ]
    write_groups(tmp_path / "train-00000-of-00001.parquet", rows)
    three, bad, four, good = open_suite("editreward-bench", tmp_path).items
    assert (three.key, three.slice, three.candidates) == ("g3", "3pair", ("A", "B", "C"))
    assert {one.key: (one.left, one.right, one.label) for one in three.comparisons} == {
        "g3_AvsB": (0, 1, "left"),
        "g3_AvsC": (0, 2, "right"),
        "g3_BvsC": (1, 2, "right"),
    }
    assert [one.label for one in (*bad.comparisons, *good.comparisons)] == ["both_bad", "tie"]
    assert [one.label for one in four.comparisons] == ["right"] * 6
    assert [brightness(decode_picture(edit)) for edit in four.edits] == [1, 2, 3, 4]


def test_editrewards_bench_is_read_from_its_json_files(tmp_path: Path) -> None:
    source = put(tmp_path, "images/in.png", 100)
    edits = [put(tmp_path, f"images/{number}.png", 10 + number) for number in range(4)]
    for size, ranking in ((2, "A=B=Good"), (3, "B>C>A"), (4, "D>A>B>C")):
        record = {
            "prompt": "edit",
            "path_src": source,
            "paths_generated": edits[:size],
            "human_vote": {"ranking": ranking},
        }
        (tmp_path / f"EditReward_Bench_{size}pair.json").write_text(json.dumps([record]))
    two, three, four = open_suite("editreward-bench", tmp_path).items
    assert [item.key for item in (two, three, four)] == ["2pair-0", "3pair-0", "4pair-0"]
    assert [one.label for one in two.comparisons] == ["tie"]
    assert [(one.key, one.label) for one in three.comparisons] == [
        ("3pair-0_AvsB", "right"),
        ("3pair-0_AvsC", "right"),
        ("3pair-0_BvsC", "left"),
    ]
    assert len(four.comparisons) == 6


def test_auroras_pairs_name_a_winner_and_its_points_are_gathered_by_question(tmp_path: Path) -> None:
    write_aurora(tmp_path, [("one", 9, 8), ("tie", 7, 6), ("other", 5, 4)], [("m", 0.5, 30), ("n", 1.0, 40)])
    records = json.loads((tmp_path / "human_ratings_updated_prompt.json").read_text())
    records.append(records[0] | {"model": "n", "score": 0.0})
    (tmp_path / "human_ratings_updated_prompt.json").write_text(json.dumps(records))
    suite = open_suite("aurora-bench", tmp_path)
    assert [one.comparisons[0].label for one in suite.items[:3]] == ["left", "tie", "right"]
    first, second = suite.items[3:]
    assert (first.key, first.candidates, second.candidates) == ("point-0", ("m", "n"), ("n",))
    assert first.ratings is not None
    assert first.ratings.tolist() == [[0.5, 0.0]]


def test_imagenhub_has_a_file_a_rater_and_leaves_out_a_model_without_pictures(tmp_path: Path) -> None:
    cells = [["[1, 0.25]", "[0.5,0.5]", "[1,1]"], ["[0, 1]", "", "[1,1]"]]
    write_imagenhub(tmp_path, {"rater1": cells, "rater2": cells[::-1]}, ["InstructPix2Pix", "MagicBrush"])
    first, second = open_suite("imagenhub", tmp_path).items
    assert first.candidates == ("InstructPix2Pix", "MagicBrush")
    assert first.raters == ("rater1", "rater2")
    assert first.ratings is not None
    assert second.ratings is not None
    np.testing.assert_allclose(first.ratings, [[0.5, 0.5], [0.0, np.nan]])
    np.testing.assert_allclose(second.ratings, [[0.0, np.nan], [0.5, 0.5]])


def test_a_rating_is_json_and_nothing_else(tmp_path: Path) -> None:
    write_imagenhub(tmp_path, {"r": [["__import__('os')", "[1, 2]", "[1]"]]}, ["MagicBrush"])
    with pytest.raises(EditLoopError) as error:
        open_suite("imagenhub", tmp_path)
    assert str(error.value).count("no [SC, PQ] of two numbers 0..1") == 3


def test_labels_alone_make_a_suite_of_pairs(tmp_path: Path) -> None:
    lines = [{"key": "a", "label": "left"}, {"key": 7, "label": "both_bad"}]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    suite = open_suite("genai-bench", None, tmp_path / "labels.jsonl")
    assert not suite.has_images
    assert [(item.key, item.comparisons[0].label) for item in suite.items] == [("a", "left"), ("7", "both_bad")]
    with pytest.raises(EditLoopError, match="has no ties"):
        open_suite("editscore-bench", None, tmp_path / "labels.jsonl")
    with pytest.raises(EditLoopError, match="no suite of pairs"):
        open_suite("imagenhub", None, tmp_path / "labels.jsonl")
    with pytest.raises(EditLoopError, match="labels of its own"):
        open_suite("genai-bench", tmp_path, tmp_path / "labels.jsonl")
    with pytest.raises(EditLoopError, match=r"give its folder \(--data\)"):
        open_suite("genai-bench", None)


def test_every_fault_of_a_suite_is_told_at_once(tmp_path: Path) -> None:
    good = editscore_row("p", "subject-add", "overall", 90, 10)
    rows = [
        good,
        good,
        good | {"dimension": "beauty", "key": ["x", "y"]},
        good | {"task_type": "juggling", "key": ["x2", "y2"]},
        good | {"key": ["b", "c"], "output_images": [cell(1), {"bytes": b"no picture", "path": None}]},
        good | {"key": ["d", "e"], "output_images": [cell(1), {"bytes": None, "path": None}]},
        good | {"key": ["f", "g"], "output_images": [cell(1)]},
    ]
    write_editscore(tmp_path / "train.parquet", rows)
    with pytest.raises(EditLoopError) as error:
        open_suite("editscore-bench", tmp_path)
    told = str(error.value)
    for part in (
        f"--data {tmp_path}: 6 fault(s)",
        "row 2: dimension 'beauty'; there are prompt_following, consistency, overall",
        "row 3: task_type 'juggling'",
        "train.parquet row 4 output_images: not a readable PNG",
        "row 5 output_images: no picture in it",
        "row 6: 1 output_images; two are compared",
        "key p-1|p-2|overall comes twice",
    ):
        assert part in told


def test_many_faults_are_counted_and_the_first_told(tmp_path: Path) -> None:
    write_genai(tmp_path / "x.parquet", [genai_row("upvote", 1, 2, source=n) for n in range(30)])
    with pytest.raises(EditLoopError, match=r"30 fault\(s\)") as error:
        open_suite("genai-bench", tmp_path)
    assert len(str(error.value).splitlines()) == 22
    assert "and 10 more" in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ranking": "A>Z"}, "ranking 'A>Z' does not order A and B"),
        ({"comparison_type": "AvsA"}, "comparison_type 'AvsA'"),
        ({"dataset": "9pair"}, "dataset '9pair'"),
        ({"candidate_1": cell(99)}, "candidate_1 is another picture than A"),
        ({"comparison_type": "BvsC", "ranking": "B>C", "candidate_1": cell(2), "candidate_2": cell(3)}, "twice"),
    ],
)
def test_a_group_that_does_not_hold_together_is_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    rows = group_rows("g", "A>B>C", [1, 2, 3])
    write_groups(tmp_path / "x.parquet", [*rows[1:], rows[0] | change])
    with pytest.raises(EditLoopError, match=told):
        open_suite("editreward-bench", tmp_path)


def test_a_file_of_another_suite_a_broken_file_and_no_file_are_told(tmp_path: Path) -> None:
    write_genai(tmp_path / "x.parquet", [genai_row("leftvote", 1, 2)])
    with pytest.raises(EditLoopError, match=r"no column key, instruction, task_type.*Another suite's file\?"):
        open_suite("editscore-bench", tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(EditLoopError, match="not a parquet file"):
        open_suite("genai-bench", tmp_path)
    (tmp_path / "x.parquet").unlink()
    with pytest.raises(EditLoopError, match=r"no \.parquet, \.arrow, \.jsonl or \.json file"):
        open_suite("genai-bench", tmp_path)
    with pytest.raises(EditLoopError, match="no such suite; there are editscore-bench"):
        open_suite("imagenet", tmp_path)
    with pytest.raises(EditLoopError, match=r"neither human_ratings_pairwise\.json"):
        open_suite("aurora-bench", tmp_path)
    with pytest.raises(EditLoopError, match=r"dataset_lookup\.json: cannot be read \(No such file"):
        open_suite("imagenhub", tmp_path)
