"""What operators see of a step: its page with links, and the last line of its log."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from editloop.lineage import step_page as module
from editloop.lineage.step_page import step_page
from pipelines.catalogue import STAGES

RUN, EXPERIMENT = "abc", "7"


@pytest.fixture(autouse=True)
def _mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.tracking, "experiment_of", lambda run: EXPERIMENT)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.inside:5000/")


def page(output: Path, stage: str = "promote") -> str:
    return step_page(STAGES[stage], output, {"model_version": 3.0}, RUN)


def test_a_step_links_to_its_run_where_people_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f'href="http://mlflow.inside:5000/#/experiments/{EXPERIMENT}/runs/{RUN}"' in page(tmp_path)
    monkeypatch.setenv("EDITLOOP_MLFLOW_PUBLIC_URL", "https://mlflow.example")
    assert f'href="https://mlflow.example/#/experiments/{EXPERIMENT}/runs/{RUN}"' in page(tmp_path)
    monkeypatch.delenv("EDITLOOP_MLFLOW_PUBLIC_URL")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert "href" not in page(tmp_path)


def test_a_promotion_names_and_links_the_registered_version(tmp_path: Path) -> None:
    promotion = {
        "name": "edit-reward",
        "version": 3,
        "alias": "champion",
        "verdict": "promote",
        "reasons": ["<better>"],
    }
    (tmp_path / "promotion.json").write_text(json.dumps(promotion))
    text = page(tmp_path)
    assert 'href="http://mlflow.inside:5000/#/models/edit-reward/versions/3"' in text
    assert "edit-reward, version 3: champion (the gate says promote)" in text
    assert "&lt;better&gt;" in text


def test_a_campaign_is_linked_and_no_other_scheme(tmp_path: Path) -> None:
    (tmp_path / "campaign.json").write_text(json.dumps({"url": "https://studio.example/projects/4"}))
    assert 'href="https://studio.example/projects/4"' in page(tmp_path, "annotate")
    (tmp_path / "campaign.json").write_text(json.dumps({"url": "javascript:alert(1)"}))
    assert "javascript" not in page(tmp_path, "annotate")


def test_a_training_shows_its_curves(tmp_path: Path) -> None:
    steps = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    (tmp_path / "training.json").write_text(json.dumps({"steps": steps, "evaluations": steps}))
    text = page(tmp_path, "reward")
    assert "<svg" in text
    assert "Train the reward model" in text


def test_a_stages_own_page_is_shown_with_the_links_above(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html><body><h1>own</h1></body></html>")
    text = page(tmp_path)
    assert text.index("Run in MLflow") < text.index("<h1>own</h1>")
    assert text.count("<body>") == 1


@pytest.mark.parametrize(
    ("raised", "last", "traceback"),
    [
        ("EditLoopError('edits: none. Give some.')", "editloop: edits: none. Give some.", False),
        ("KeyError('x')", "editloop: KeyError: 'x'", True),
        ("KeyboardInterrupt", "editloop: stopped; a retry goes on at the last checkpoint", False),
    ],
)
def test_a_failed_step_ends_with_its_reason(raised: str, last: str, traceback: bool) -> None:
    deep = "def f(n):\n    if n: f(n - 1)\n    raise " + raised
    code = "from editloop.errors import EditLoopError\nfrom editloop.lineage.step import end_in_one_line\n"
    code += f"{deep}\nwith end_in_one_line():\n    f(40)\n"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert lines[-1] == last
    assert ("Traceback" in ended.stderr) == traceback
    assert len(lines) <= 20
