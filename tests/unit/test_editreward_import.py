"""EditReward's data as published: parquet with images inside, bad rows left out, and an import that was stopped."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, _imaging
from typer.testing import CliRunner

from annotation.formats import editreward_import, import_folders
from annotation.formats.editreward_import import import_pairs
from annotation.formats.judgements_folder import read_judgements
from editloop.content import read_manifest
from editloop.data import row_import
from editloop.data.candidates_folder import read_tasks
from editloop.data.picture_file import file_picture_sha256
from editloop.datasets.build import write_dataset
from editloop.datasets.shards import shards
from editloop.datasets.splits import SPLITS
from editloop.errors import EditLoopError
from pipelines.cli import app

PUBLISHED = Path(__file__).parents[1] / "parity" / "suites" / "editreward-data.parquet"
"""Six rows in the published layout; the last has no right picture."""


def png(seed: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def row(task: int, left: tuple[float, float] = (4.0, 2.0), right: tuple[float, float] = (2.0, 2.0)) -> dict[str, Any]:
    margin = sum(left) - sum(right)
    return {
        "instruction": f"Make cup {task} red.",
        "source_img": png(task),
        "vote_type": "leftvote" if margin > 0 else "rightvote" if margin < 0 else "tie",
    } | {
        f"{side}_{name}": value
        for side, seed, scores in (("left", 1000, left), ("right", 2000, right))
        for name, value in (
            ("output_image", png(seed + task)),
            ("model", f"{side}-editor"),
            ("overall_score", sum(scores)),
            ("instruction_following_score", scores[0]),
            ("quality_aesthetic_score", scores[1]),
        )
    }


def write_rows(path: Path, rows: list[dict[str, Any]], row_group: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group)
    return path


def test_the_published_layout_comes_in_and_the_row_without_a_picture_is_left_out(tmp_path: Path) -> None:
    """The orders that the data set's card gives: left, right, tie, tie with axes that disagree, left."""
    report = import_pairs(PUBLISHED, tmp_path / "c", tmp_path / "j")
    assert report.rows == 5
    assert report.skipped == (f"{PUBLISHED}: row 6: right_output_image: no picture",)
    assert (tmp_path / "j" / "skipped.txt").read_text() == f"{report.skipped[0]}\n"
    ratings = {
        (one.task_id, one.candidate_id): (one.instruction_following, one.visual_quality)
        for one in read_judgements(tmp_path / "j")
    }
    orders = {}
    for task in read_tasks(tmp_path / "c"):
        left, right = (ratings[task.task_id, one.candidate_id] for one in task.candidates)
        orders[task.instruction] = (left, right)
    assert len(orders) == 5
    assert orders["Make the blue box a ball."] == ((4, 3), (2, 2))
    assert orders["Remove the lamp"] == ((1, 2), (3, 4))
    assert orders["Turn day into night"] == ((3, 3), (3, 3))
    assert orders['Add a "SALE" sign'] == ((4, 1), (2, 3))
    for name in ("c", "j"):
        read_manifest(tmp_path / name, check=True)


def test_a_folder_of_shards_becomes_a_dataset_whose_origin_is_kept(tmp_path: Path) -> None:
    for shard in range(3):
        rows = [row(10 * shard + number, (4.0, 1.0 + number % 3), (2.0, 2.0)) for number in range(10)]
        write_rows(tmp_path / "data" / f"train-{shard}.parquet", rows)
    report = import_pairs(tmp_path / "data", tmp_path / "c", tmp_path / "j")
    assert report[:4] == (30, 30, 60, ())
    write_dataset(tmp_path / "j", tmp_path / "c", tmp_path / "d")
    assert read_manifest(tmp_path / "d")["facts"]["groups"] == 30
    assert all(shards(tmp_path / "d", "pairs", split) for split in SPLITS)
    origin = json.loads((tmp_path / "j" / "origin.json").read_bytes())
    assert sorted(origin["files"]) == [f"train-{shard}.parquet" for shard in range(3)]
    for name in ("c", "j", "d"):
        assert read_manifest(tmp_path / name)["facts"]["origin"] == origin
    for path in (tmp_path / "c" / "images").iterdir():
        assert file_picture_sha256(path) == path.stem


FAULTS = {
    "score of a half": ({"left_quality_aesthetic_score": 2.5}, r"left scores \[4\.0, 2\.5\]: each is 1, 2, 3 or 4"),
    "no score": ({"right_instruction_following_score": None}, r"right scores \[None, 2\.0\]"),
    "other sum": ({"left_overall_score": 7.0}, "left_overall_score = 7: the two scores add up to 6"),
    "other vote": ({"vote_type": "rightvote"}, "vote_type = rightvote, but the overall scores are 6 and 4"),
    "unknown vote": ({"vote_type": "both"}, "vote_type = 'both': one of leftvote, rightvote, tie"),
    "no instruction": ({"instruction": " "}, "instruction: empty"),
    "broken picture": ({"source_img": {"bytes": b"GIF89a", "path": None}}, "source: not a readable PNG"),
    "same pictures": ({"right_output_image": png(1001)}, "both edits are the same picture"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_row_is_left_out_and_named_or_refused(tmp_path: Path, fault: str) -> None:
    change, words = FAULTS[fault]
    path = write_rows(tmp_path / "rows.parquet", [row(0), row(1) | change, row(2)])
    report = import_pairs(path, tmp_path / "c", tmp_path / "j")
    assert (report.rows, len(report.skipped)) == (2, 1)
    with pytest.raises(EditLoopError, match=rf"1 row with faults; nothing was written\.\n.*row 2: {words}"):
        import_pairs(path, tmp_path / "c2", tmp_path / "j2", strict=True)
    assert not (tmp_path / "c2").exists()


def test_an_import_that_was_stopped_goes_on_and_decodes_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "rows.parquet", [row(number) for number in range(40)])
    import_pairs(path, tmp_path / "whole", tmp_path / "j-whole")
    stored: list[str] = []
    store = row_import.store_png

    def stops(image: Image.Image, folder: Path) -> str:
        stored.append(store(image, folder))
        if len(stored) == 60:
            raise KeyboardInterrupt
        return stored[-1]

    monkeypatch.setattr(row_import, "store_png", stops)
    with pytest.raises(KeyboardInterrupt):
        import_pairs(path, tmp_path / "c", tmp_path / "j")
    assert not (tmp_path / "c").exists()
    (journal,) = (tmp_path / ".unfinished").glob("*/journal.jsonl")
    done = journal.read_bytes().count(b"\n")
    assert done > 5
    journal.write_bytes(journal.read_bytes() + b'["rows.parquet", ["cut o')
    before = len(stored)
    import_pairs(path, tmp_path / "c", tmp_path / "j")
    assert len(stored) - before <= 3 * (40 - done)
    for name, whole in (("c", "whole"), ("j", "j-whole")):
        assert read_manifest(tmp_path / name)["files"] == read_manifest(tmp_path / whole)["files"]
    assert not list((tmp_path / ".unfinished").iterdir())


def test_an_import_that_was_stopped_while_it_wrote_its_folders_loses_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "rows.parquet", [row(number) for number in range(6)])

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("write_file", "write_imported"):
        with monkeypatch.context() as patched:
            patched.setattr(import_folders, name, stops)
            with pytest.raises(KeyboardInterrupt):
                import_pairs(path, tmp_path / "c", tmp_path / "j")
    assert import_pairs(path, tmp_path / "c", tmp_path / "j").rows == 6
    assert len(list((tmp_path / "c" / "images").iterdir())) == 18


def test_files_of_one_name_in_several_folders_are_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, part in enumerate(("a", "b")):
        write_rows(tmp_path / "data" / part / "rows.parquet", [row(10 * number + place) for place in range(4)])

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(editreward_import, "_tasks", stops)
        with pytest.raises(KeyboardInterrupt):
            import_pairs(tmp_path / "data", tmp_path / "c", tmp_path / "j")
    assert import_pairs(tmp_path / "data", tmp_path / "c", tmp_path / "j")[:3] == (8, 8, 16)


def test_other_parquet_files_and_empty_folders_are_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"instruction": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(EditLoopError, match=r"other\.parquet: lacks the columns source_img, vote_type"):
        import_pairs(tmp_path / "other.parquet", tmp_path / "c", tmp_path / "j")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(EditLoopError, match=r"broken\.parquet: no readable parquet file"):
        import_pairs(tmp_path / "broken.parquet", tmp_path / "c", tmp_path / "j")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EditLoopError, match=r"empty: holds no \*\.parquet"):
        import_pairs(tmp_path / "empty", tmp_path / "c", tmp_path / "j")


def test_the_command_prints_what_came_in_and_what_was_left_out(tmp_path: Path) -> None:
    arguments = ["--format", "editreward", "--candidates", str(tmp_path / "c"), "--out", str(tmp_path / "j")]
    done = CliRunner().invoke(app, ["ratings", "import", str(PUBLISHED), *arguments], catch_exceptions=False)
    assert "5 rows, 5 tasks, 10 judgements" in done.output
    assert "left out:" in done.output
    with pytest.raises(EditLoopError, match="1 row with faults; nothing was written"):
        CliRunner().invoke(app, ["ratings", "import", str(PUBLISHED), *arguments, "--strict"], catch_exceptions=False)


def test_an_import_leaves_the_process_its_memory_settings(tmp_path: Path) -> None:
    before = _imaging.get_blocks_max(), pa.default_memory_pool().backend_name
    path = write_rows(tmp_path / "rows.parquet", [row(0), row(1) | {"instruction": " "}])
    import_pairs(path, tmp_path / "c", tmp_path / "j")
    with pytest.raises(EditLoopError):
        import_pairs(path, tmp_path / "c2", tmp_path / "j2", strict=True)
    assert (_imaging.get_blocks_max(), pa.default_memory_pool().backend_name) == before
