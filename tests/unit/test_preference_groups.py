"""A dataset's groups read as they are asked for: the same from any place, in any order, in bounded memory."""

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from editloop.datasets import preference_groups as data
from editloop.datasets.preference_groups import read_groups
from editloop.datasets.shards import CANDIDATE_ROWS, PAIR_ROWS, ShardWriter
from editloop.errors import EditLoopError

TASKS, CANDIDATES, ROWS_A_GROUP = 12, 3, 7


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture(number)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """12 tasks of 3 candidates in row groups of 7: tasks lie across the borders."""
    rows = [
        {
            "task_id": f"t{task}",
            "name": "",
            "task_type": "add",
            "split": "train",
            "instruction": f"do {task}",
            "source": png(1000 + task),
            "target": None,
            "candidate_id": f"c{place}",
            "image": png(10 * task + place),
            "editor": "e",
            "if_mean": 1.0 + place,
            "vq_mean": 4.0 - place,
            "ratings": 2,
        }
        for task in range(TASKS)
        for place in range(CANDIDATES)
    ]
    pairs = [
        {
            "task_id": f"t{task}",
            "a": "c0",
            "b": "c2",
            "if_order": -1,
            "vq_order": 0,
            "overall_order": 0,
            "if_margin": -2.0,
            "vq_margin": 0.0,
            "if_confidence": 0.9,
            "vq_confidence": 0.9,
            "confidence": 0.9,
        }
        for task in range(TASKS)
    ]
    pq.write_table(
        pa.Table.from_pylist(rows, CANDIDATE_ROWS), tmp_path / "candidates-train-00000.parquet", ROWS_A_GROUP
    )
    pq.write_table(pa.Table.from_pylist(pairs, PAIR_ROWS), tmp_path / "pairs-train-00000.parquet")
    return tmp_path


def test_every_group_has_its_own_pictures_in_any_order(dataset: Path) -> None:
    groups = read_groups(dataset, "train")
    for task in np.random.default_rng(0).permutation(TASKS):
        group = groups[int(task)]
        assert (group.task_id, group.instruction) == (f"t{task}", f"do {task}")
        np.testing.assert_array_equal(group.source, picture(1000 + task))
        np.testing.assert_array_equal(group.edits, [picture(10 * task + place) for place in range(CANDIDATES)])


def test_pairs_weigh_by_confidence_and_a_tie_orders_nothing(dataset: Path) -> None:
    weights = read_groups(dataset, "train")[5].weights
    assert weights[0, 2, 0] == weights[2, 0, 0] == pytest.approx(0.8)
    assert weights.sum() == pytest.approx(1.6)


def test_the_cache_stays_within_its_bound_and_changes_nothing(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, expected = read_groups(dataset, "train"), list(read_groups(dataset, "train"))
    monkeypatch.setattr(data, "CACHE_BYTES", 1)
    for task in (11, 0, 6, 0, 11):
        np.testing.assert_array_equal(groups[task].edits, expected[task].edits)
        assert len(groups._cache) == 1


def test_several_threads_read_the_same(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "CACHE_BYTES", 1)
    groups = read_groups(dataset, "train", side=4)
    with ThreadPoolExecutor(4) as pool:
        for task, group in zip(range(4 * TASKS), pool.map(lambda n: groups[n % TASKS], range(4 * TASKS)), strict=True):
            assert group.task_id == f"t{task % TASKS}"
            assert np.shape(group.edits) == (CANDIDATES, 4, 4, 3)


def test_training_reads_no_targets_and_decodes_what_it_looks_at(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = Mock(wraps=Image.open)
    monkeypatch.setattr(Image, "open", decoded)
    groups = read_groups(dataset, "train", targets=False)
    group = groups[4]
    assert decoded.call_count == 1
    for _ in range(2):
        np.testing.assert_array_equal(group.edits[-1], picture(42))
    assert decoded.call_count == 2
    assert set(groups._cache[max(groups._cache)]) == {"source", "image"}


def test_shards_are_opened_and_closed_as_they_are_read(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [group.task_id for group in read_groups(dataset, "train")]
    for number in (1, 2):
        for kind in ("candidates", "pairs"):
            shutil.copy(dataset / f"{kind}-train-00000.parquet", dataset / f"{kind}-train-0000{number}.parquet")
    monkeypatch.setattr(data, "OPEN_SHARDS", 1)
    monkeypatch.setattr(data, "CACHE_BYTES", 1)
    groups = read_groups(dataset, "train")
    assert [group.task_id for group in groups] == expected
    assert groups._open.cache_info().currsize == 1


@pytest.mark.parametrize(("size", "row_groups"), [(300_000, 6), (3_000, 1)], ids=["512 px", "32 px"])
def test_a_row_group_is_one_task_of_large_pictures_or_many_of_small_ones(
    tmp_path: Path, size: int, row_groups: int
) -> None:
    rng = np.random.default_rng(0)
    with closing(ShardWriter(tmp_path, "train", 256)) as writer:
        for task in range(6):
            source = rng.bytes(size)
            rows = [
                {"task_id": f"t{task}", "candidate_id": f"c{place}", "source": source, "target": None}
                | {"image": rng.bytes(size)}
                for place in range(2)
            ]
            writer.add(rows, [{"task_id": f"t{task}", "a": "c0", "b": "c1"}])
    shard = tmp_path / "candidates-train-00000.parquet"
    assert pq.ParquetFile(shard).num_row_groups == row_groups
    if row_groups > 1:
        assert shard.stat().st_size < 6 * 3.1 * size, "a source is stored once, not with each candidate"


def test_a_shard_that_is_lost_or_broken_while_it_is_read_is_one_line(dataset: Path) -> None:
    shard = dataset / "candidates-train-00000.parquet"
    table = pq.read_table(shard)
    broken = pa.array([png(0)[:60] for _ in range(len(table))], pa.binary())
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", broken), shard)
    groups = read_groups(dataset, "train")
    with pytest.raises(EditLoopError, match=r"^task t5: an image of the dataset is broken .*; fetch it again\.$"):
        list(groups[5].edits)
    groups._open.cache_clear()
    groups._cache.clear()
    shard.unlink()
    with pytest.raises(EditLoopError, match=r"row group 0 cannot be read .*; fetch the dataset again\.$"):
        groups[0]
