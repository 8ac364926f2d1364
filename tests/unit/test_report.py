"""The report: shows what is there, says what is missing, holds everything itself, trusts no text."""

import json
import math
import re
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editloop.content import file_digests
from editloop.data.picture_file import store_png
from editloop.data.vocabulary import Candidate, EditTask, Judgement, candidate_id, task_id
from editloop.errors import EditLoopError
from editloop.pages.plots import Line, bars, finite_or_none, running_mean, series
from pipelines.report import percent, points, seconds, write_report
from pipelines.report_data import gather_report_data

SUMMARY: dict[str, Any] = {
    "stages": [{"name": "reward", "status": "done", "seconds": 61.0}, {"name": "collect", "status": "failed"}],
    "annotation": {"tasks": 6, "judgements": 36, "annotators": 3, "alpha": {"if": 0.71, "vq": None}},
    "dataset": {"pairs": 18, "groups": 6, "sha256": "ab" * 32, "dvc_rev": "cd" * 20},
    "reward": {"accuracy_oracle": 0.81, "accuracy_base": 0.7, "ci95": [0.75, 0.86], "train_pairs": 12},
    "gate": {"reward": {"verdict": "promote", "reasons": ["better than <b>chance</b>"]}, "editor": {"verdict": "hold"}},
    "editor": {"base": 0.5, "tuned": 0.52, "uplift": 0.02, "ci95": [-0.01, 0.05], "tasks": 600},
    "verify": {
        "reward": {"complete": True, "links": [{"name": "run", "value": "r1"}]},
        "editor": {"complete": False, "gap": "no DVC tag"},
    },
    "seconds": 400,
}


class Page(HTMLParser):
    """What a page says, which tags it opens, what it loads, and the ids that it uses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.loads, self.ids = "", Counter[str](), list[str](), Counter[str]()
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag == "style"
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            if (name in ("src", "srcset") or (tag == "link" and name == "href")) and value:
                self.loads.append(value)

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else data


def report(out: Path, summary: dict[str, Any]) -> Page:
    out.mkdir(exist_ok=True)
    (out / "summary.json").write_text(json.dumps(summary))
    return Page(write_report(out).read_text())


def stage_outputs(root: Path) -> dict[str, Path]:
    """Six tasks of two types, two candidates each; the later a task, the more its first candidate is liked."""
    candidates, collect, training = root / "candidates", root / "collect", root / "rl"
    (candidates / "images").mkdir(parents=True)
    collect.mkdir()
    training.mkdir()

    def picture(level: int) -> str:
        return store_png(Image.fromarray(np.full((32, 32, 3), level, dtype=np.uint8)), candidates / "images")

    tasks, judgements = [], []
    for place in range(6):
        source = picture(place)
        task = task_id(source, f"task {place}")
        made = [
            Candidate(candidate_id=candidate_id(task, image), image=image, editor=editor)
            for image, editor in ((picture(100 + place), "one"), (picture(200 + place), "two"))
        ]
        kind = "move" if place == 0 else "add"
        tasks.append(
            EditTask(
                task_id=task,
                name=str(place),
                task_type=kind,
                instruction=f"task {place} <script>alert(1)</script>",
                source=source,
                candidates=tuple(made),
            )
        )
        for candidate, rating in zip(made, (1 + place // 2, 1), strict=True):
            for annotator in ("a", "b"):
                said = {"task_id": task, "candidate_id": candidate.candidate_id, "annotator": annotator, "position": 0}
                when = {"annotation_id": 1, "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
                judgements.append(Judgement.model_validate({**said, **when, "if": rating, "vq": 2}))
    for path, rows in ((candidates / "tasks.jsonl", tasks), (collect / "judgements.jsonl", judgements)):
        path.write_text("".join(row.model_dump_json(by_alias=True) + "\n" for row in rows))
    alpha = {"alpha": 0.71, "ci95": [0.6, 0.8], "items": 12, "raters": 2}
    (collect / "agreement.json").write_text(json.dumps({"if": alpha, "vq": alpha | {"alpha": math.nan}}))
    steps = [{"step": k, "reward": 0.4 + k / 100, "kl": k / 1000} for k in range(30)]
    seen = [
        {"step": 25 * k, "oracle": 0.7 - k / 50, "oracle_low": 0.6, "oracle_high": 0.8, "right": 0.5} for k in (0, 1)
    ]
    told = {"steps": steps, "evaluations": seen, "reason": "The reward rises while <oracle> falls."}
    (training / "training.json").write_text(json.dumps(told))
    return {"candidates": candidates, "collect": collect, "editor_rl": training}


def test_the_report_shows_the_figures_it_was_given(tmp_path: Path) -> None:
    gather_report_data(tmp_path, stage_outputs(tmp_path / "stages"))
    page = report(tmp_path, SUMMARY)
    for shown in (
        "81.0 %",
        "[75.0, 86.0]",
        "+2.0 points",
        "0.71",
        "1 min 01 s",
        "6 min 40 s",
        "KL to the base editor",
        "The oracle’s score",
        "while <oracle> falls",
    ):
        assert shown in page.text
    assert "A difference of that size may be chance." in page.text
    assert "First gap: no DVC tag" in page.text
    assert page.tags["figure"] == 5 * 3


def test_the_report_holds_everything_and_trusts_no_text(tmp_path: Path) -> None:
    gather_report_data(tmp_path, stage_outputs(tmp_path / "stages"))
    page = report(tmp_path, SUMMARY)
    assert page.loads
    assert all(source.startswith("data:image/") for source in page.loads)
    assert page.tags["script"] == 0
    assert "<script>alert(1)</script>" in page.text
    assert "better than <b>chance</b>" in page.text
    assert [name for name, count in page.ids.items() if count > 1] == []
    assert not re.search(r"#01020\d", (tmp_path / "report.html").read_text())


@pytest.mark.parametrize(
    "summary", [{"stages": []}, dict.fromkeys(SUMMARY), {**SUMMARY, "reward": {"ci95": [None, 1]}}]
)
def test_what_is_missing_is_said_and_not_made_up(tmp_path: Path, summary: dict[str, Any]) -> None:
    page = report(tmp_path, summary)
    assert "not measured" in page.text
    for stage in ("collect", "editor_rl", "reward"):
        assert f"the stage {stage} writes" in page.text
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text


def test_a_report_without_a_run_or_with_a_broken_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EditLoopError, match=r"no summary\.json"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "report-data").mkdir()
    (tmp_path / "report-data" / "benchmark.json").write_text("{")
    with pytest.raises(EditLoopError, match=r"benchmark\.json: not JSON"):
        write_report(tmp_path)


def test_judged_tasks_are_of_every_type_and_told_apart_most(tmp_path: Path) -> None:
    data = gather_report_data(tmp_path, stage_outputs(tmp_path / "stages"))
    tasks = json.loads((data / "judged.json").read_text())["tasks"]
    first, second, third = (task["instruction"][:6] for task in tasks[:3])
    assert second == "task 0"
    assert {first, third} == {"task 4", "task 5"}
    best, other = tasks[0]["candidates"]
    assert (best["editor"], best["if"], best["vq"], other["if"]) == ("one", 3, 2, 1)
    before = file_digests(data)
    gather_report_data(tmp_path, {})
    assert file_digests(data) == before


def test_a_lost_figure_is_never_a_number() -> None:
    assert [finite_or_none(value) for value in (None, math.nan, math.inf, "0.5", True, 0, 0.5)] == [None] * 5 + [
        0.0,
        0.5,
    ]
    assert percent(math.nan) == points(None) == seconds("x") == "not measured"
    assert (percent(0.5), points(-0.031)) == ("50.0 %", "−3.1 points")
    assert (seconds(59.9), seconds(3600)) == ("59.9 s", "60 min 00 s")
    assert series([{"step": 1, "a": math.nan}, {"step": 2, "a": 3}, "x"], "a") == ([2.0], [3.0])


def test_running_mean_looks_back_only() -> None:
    assert running_mean([4.0, 2.0, 6.0, 1.0], 2) == [4.0, 3.0, 4.0, 3.5]
    assert running_mean([4.0, 2.0], 1) == [4.0, 2.0]


def test_a_missing_value_has_no_bar_and_moves_no_other() -> None:
    full, gap = (
        bars("p", ["a", "b", "c"], [Line("x", [0.1, *middle, -0.5], "#111111"), Line("y", [None] * 3, "#222222")], 0.3)
        for middle in ([0.2], [None])
    )
    assert full is not None
    assert gap is not None
    drawn = [re.findall(r'<path d="([^"]+)" clip-path="[^"]+" style="fill: #111111"/>', svg) for svg in (full, gap)]
    assert [len(paths) for paths in drawn] == [3, 2]
    assert drawn[1] == [drawn[0][0], drawn[0][2]]
    assert "fill: #222222" in gap, "its label"
    assert not re.search('<path [^>]*style="fill: #222222"', gap)
    assert bars("p", [], [], 0.3) is None
