"""dvc.yaml, really reproduced in a copy of the project: people are waited for, work is done once, changes are told."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.inputs import draw_scenes
from pipelines.settings import SMALLEST
from tests.forked_commands import forked_commands

pytestmark = pytest.mark.timeout(600)
TOP = Path(__file__).parents[2]
STAGES = list(yaml.safe_load((TOP / "dvc.yaml").read_text())["stages"])
EVALUATIONS = ("editor_eval", "editor_eval_of_curate_editor", "editor_eval_of_learn_from_pairs")
PARAMETERS = SMALLEST.model_copy(
    update={
        name: getattr(SMALLEST, name).model_copy(update={"processes": 1})
        for name in ("reward", "editor_sft", "editor_dpo", "editor_rl")
    }
)


@pytest.fixture
def project(tmp_path, service_environment, monkeypatch):
    """A git repository with what DVC reads of the project, its input, the smallest parameters, and the environment."""
    folder = tmp_path / "project"
    for name in ("dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOP / name, folder / name)
    (folder / "params.yaml").write_text(
        yaml.safe_dump(PARAMETERS.model_dump(mode="json", exclude_unset=True), sort_keys=False)
    )
    draw_scenes(folder / "runs/demo/edits", PARAMETERS.scenes, PARAMETERS.seed)
    for name, place in (("REPO", "repo"), ("REMOTE", "remote")):
        monkeypatch.setenv(f"EDITLOOP_DATASET_{name}", str(tmp_path / place))
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDITLOOP_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("SHELL", "/bin/sh")  # DVC runs the stages in the user's
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site-cache"))
    for name, value in {"AUTHOR": "a", "COMMITTER": "a"}.items():
        monkeypatch.setenv(f"GIT_{name}_NAME", value)
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@localhost")
    (folder / ".dvc" / "config.local").write_text("[core]\n    check_update = false\n")
    run(folder, "git", "init", "--quiet")
    programs = tmp_path / "programs"
    programs.mkdir()
    with forked_commands(programs):
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        yield folder


def run(folder, *command, fails=False):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == fails, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def stages_run(output):
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def commit(folder):
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "a turn")


def test_the_loop_by_dvc(project):
    waiting = run(project, "dvc", "repro", fails=True)
    assert stages_run(waiting) == ["candidates", "annotate", "collect"]
    assert "is not complete: 0 of" in waiting
    given = run(project, "editloop", "campaign", "simulate", "runs/dvc/annotate", "--candidates", "runs/dvc/candidates")
    assert "answers" in given
    assert sorted(stages_run(run(project, "dvc", "repro"))) == sorted(set(STAGES) - {"candidates", "annotate"})
    again = run(project, "dvc", "repro")
    assert stages_run(again) == []
    assert again.count("didn't change, skipping") == len(STAGES)
    for folder in ("benchmark", *EVALUATIONS):
        assert json.loads((project / "runs/dvc" / folder / "gate.json").read_text())["verdict"] == "promote"
    commit(project)

    values = PARAMETERS.model_dump(mode="json", exclude_unset=True)
    values["editor_eval"]["steps"] += 1
    (project / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    before = evaluations(project)
    assert sorted(stages_run(run(project, "dvc", "repro"))) == sorted(EVALUATIONS)
    after = evaluations(project)
    told = json.loads(run(project, "dvc", "metrics", "diff", "--json"))
    assert told == {name: difference(before[name], after[name]) for name in before}
    plots(project)


def evaluations(project):
    """What was measured of either editor, by its file."""
    names = [f"runs/dvc/{folder}/evaluation.json" for folder in EVALUATIONS]
    return {name: json.loads((project / name).read_text()) for name in names}


def difference(before, after):
    """What `dvc metrics diff` says of an evaluation where both axes changed."""
    assert after["axes"] != before["axes"]
    axes = {
        f"axes.{name}.{axis}": {
            "old": before["axes"][name][axis],
            "new": after["axes"][name][axis],
            "diff": pytest.approx(after["axes"][name][axis] - before["axes"][name][axis]),
        }
        for name in ("base", "tuned")
        for axis in ("if", "vq")
    }
    return axes | changed(before, after)


def changed(before, after):
    """What `dvc metrics diff` says of the shares of right edits, where they changed."""
    flat = [
        {"base": one["base"], "tuned": one["tuned"], "uplift": one["uplift"]}
        | {f"by_task.{kind}.{name}": share for kind, shares in one["by_task"].items() for name, share in shares.items()}
        for one in (before, after)
    ]
    return {
        name: {"old": old, "new": flat[1][name], "diff": pytest.approx(flat[1][name] - old)}
        for name, old in flat[0].items()
        if flat[1][name] != old
    }


def plots(project):
    """Each curve is that of the evaluations in training.json, and the pictures are there."""
    shown = json.loads(run_quietly(project, "dvc", "plots", "show", "--json"))["data"]
    for title, folder, field in (
        ("reward model, accuracy on validation pairs", "reward", "accuracy"),
        ("editor, share of right edits on practice tasks", "editor_rl", "right"),
        ("editor, loss on held-out curated edits", "editor_sft", "loss"),
        ("editor, accuracy on held-out pairs", "editor_dpo", "accuracy"),
    ):
        (plot,) = shown[title]
        values = plot["content"]["data"]["values"]
        kept = json.loads((project / "runs/dvc" / folder / "training.json").read_text())["evaluations"]
        drawn = [(one["step"], one[field]) for one in values if field in one]
        assert drawn == [(one["step"], one[field]) for one in kept]
    assert shown["runs/dvc/editor_eval/contact-sheet.png"]
    page = run(project, "dvc", "plots", "show").strip().splitlines()[-1]
    assert "contact-sheet.png" in Path(page.removeprefix("file://")).read_text()


def run_quietly(folder, *command):
    """Standard output alone."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
