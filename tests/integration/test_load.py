"""The load run in a few seconds: its parts find nothing lost, and notice what is."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from editloop.models.judge_protocol import EditGroup
from tests.answered_campaigns import Opened
from tests.load import reward
from tests.load.__main__ import MARK, PARTS, run, write_page
from tests.load.annotators import Traffic
from tests.load.measurement import Row, Watch
from tests.pixel_judge import PixelJudge
from tests.served_judge import pictures, served


def test_what_annotators_send_is_what_is_read_back(opened: Callable[..., Opened]) -> None:
    traffic = Traffic(opened("load"), thinking=0.1)
    asyncio.run(traffic.run(10))
    assert len(traffic.taken) == 8, "two people on four pages"
    assert not traffic.faults
    assert not any(traffic.compare())
    (page, name), levels = next(iter(traffic.taken.items()))
    traffic.taken[page, name] = tuple({**level, "if": 5 - level["if"]} for level in levels)
    assert traffic.compare().lost == [(page, name)]


def test_a_server_whose_processes_are_killed_gives_right_answers(tmp_path: Path) -> None:
    groups = []
    for seed in range(20):
        source, *edits = pictures(3, seed)
        groups.append(EditGroup("make it red", source, [edit // (1 + seed % 4) for edit in edits]))
    with served(tmp_path, **reward.SETTINGS) as server:
        row = reward.ask_while_killing(server, PixelJudge(), groups, 3, 0.3)
        assert not row.figures["other errors"]
        assert not row.figures["unanswered"]
        assert not row.figures["wrong answers"]
        assert row.figures["decoders killed"]

        class OtherJudge(PixelJudge):
            def score(self, edit_group, edit):
                return super().score(edit_group, np.flip(255 - edit))

        assert reward.ask_while_killing(server, OtherJudge(), groups, 0.5, 0.2).figures["wrong answers"]


def test_parts_are_measured_kept_and_written_into_the_page(tmp_path: Path) -> None:
    results, page = tmp_path / "load.json", tmp_path / "load.md"
    page.write_text(f"before\n{MARK}an earlier table\n{MARK}after\n")
    assert run(["scores"], seconds=1, scale=0.0002, results=results, page=page) == 0
    assert run(["dataset"], seconds=1, scale=0.0002, results=results, page=page) == 0
    rows = json.loads(results.read_text())["rows"]
    assert [row["part"] for row in rows] == ["dataset", "scores", "scores", "scores"]
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("| yes |") == 4
    assert "an earlier table" not in text


@pytest.mark.extended("a store of its own, filled, and a turn of the loop in it")
def test_every_look_up_finds_all_of_a_long_life(tmp_path: Path) -> None:
    assert run(["mlflow"], seconds=1, scale=0.02, results=tmp_path / "load.json", page=None) == 0


def test_memory_that_grows_is_not_flat() -> None:
    watch = Watch(list)
    for megabytes, is_flat in (([100.0] * 9, True), ([100.0, 200.0, 300.0, 400.0, 500.0, 600.0], False)):
        watch.megabytes = megabytes
        assert watch.is_flat == is_flat


def test_a_row_that_does_not_hold_says_so(tmp_path: Path) -> None:
    page = tmp_path / "load.md"
    page.write_text(MARK + MARK)
    write_page(page, [Row("reward", "a job", {"answers": 12_345, "MB": "1, 2"}, holds=False)._asdict()])
    assert "| a job | answers: 12,345<br>MB: 1, 2 | no |" in page.read_text()
    assert set(PARTS) == {"annotators", "reward", "mlflow", "dataset", "leaks", "scores"}
