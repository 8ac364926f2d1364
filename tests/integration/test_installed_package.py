"""The wheel as a team installs it: the library alone, beside a repository's own `components`, and a plug-in package."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import editloop
from editloop.studies.world.scenes import write_edits
from tests.command_line import EditLoop

pytestmark = pytest.mark.slow("builds and installs two packages")
TOP = Path(__file__).parents[2]

PLUGIN = '''
"""A judge that likes bright edits, a suite of pairs, and an editor whose pipeline is a class of our own."""

import json

import numpy as np
from diffusers import FluxKontextPipeline

from editloop import Score
from editloop.evaluation.suites.opening import SuiteFormat
from editloop.evaluation.suites.suite import Comparison, Item
from editloop.models.editors.kontext import KontextEditor
from editloop.models.judge_protocol import AxisScore


class BrightnessJudge:
    name, axes = "brightness", ("brightness",)

    def __init__(self, sign):
        self.version, self.sign = f"brightness-{sign}", sign

    def judge(self, groups):
        return [[self._score(edit) for edit in group.edits] for group in groups]

    def _score(self, edit):
        value = self.sign * float(np.mean(edit)) / 255
        belief = AxisScore(value, 0.0)
        return Score({"brightness": belief}, belief, value, (value + 1) / 2)


def open_brightness(address, *, device, passes):
    return BrightnessJudge(-1 if address == "dark" else 1)


def read_team_bench(data, loader, faults):
    items = []
    for line in (data / "pairs.jsonl").read_text().splitlines():
        row = json.loads(line)
        source, left, right = (loader.file(row[name], row["key"]) for name in ("source", "left", "right"))
        comparison = Comparison(row["key"], 0, 1, row["label"])
        items.append(
            Item(row["key"], source.sha256, "all", row["instruction"], ("left", "right"), (comparison,), source=source,
                 edits=(left, right))
        )
    return items


TEAM_BENCH = SuiteFormat(read_team_bench, "strict")


class TeamPipeline(FluxKontextPipeline):
    pass


class TeamEditor(KontextEditor):
    @classmethod
    def pipeline_class(cls):
        return TeamPipeline
'''
PLUGIN_PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "team-plugin"
version = "1.0"

[project.entry-points."editloop.judges"]
brightness = "team_plugin:open_brightness"
broken = "team_plugin:nothing_of_this_name"

[project.entry-points."editloop.suites"]
team-bench = "team_plugin:TEAM_BENCH"

[project.entry-points."editloop.editors"]
TeamPipeline = "team_plugin:TeamEditor"

[tool.setuptools]
py-modules = ["team_plugin"]
"""
USE = """
import sys
import numpy as np
import editloop

assert editloop.__file__.startswith(sys.argv[1]), editloop.__file__
source = np.full((32, 32, 3), 128, np.uint8)
judge = editloop.open_judge("tiny-reward")
scores = judge.judge([editloop.EditGroup("make it red", source, [source, source // 2])])[0]
assert len(scores) == 2 and not scores[0].missing
editor = editloop.open_editor("tiny-editor")
(edited,) = editloop.edit(editor, ["move the red square to the left"], np.stack([source]), seeds=[0], steps=2)
assert edited.shape == source.shape
assert editloop.read_gate("reward").suites
assert "components" not in sys.modules
print("used")
"""


def install(source: Path, target: Path, scratch: Path) -> None:
    """Install a source folder as a wheel into `target`, from a copy, without looking for dependencies."""
    shutil.copytree(source, scratch, ignore=shutil.ignore_patterns(".*", "build", "runs", "tests", "*.egg-info"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(scratch)], check=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has EditLoop's wheel installed."""
    folder = tmp_path_factory.mktemp("wheel")
    install(TOP, folder / "site", folder / "source")
    return folder / "site"


def test_the_wheel_works_in_a_repository_with_components_of_its_own(site: Path, tmp_path: Path) -> None:
    for name in ("components", "pipelines", "infra", "annotation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the team has a package of this name')\n")
    environment, command = os.environ | {"PYTHONPATH": str(site)}, [sys.executable, "-c", USE, str(site)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "used"


def test_the_wheel_carries_types_weights_presets_and_pages(site: Path) -> None:
    package = site / "editloop"
    shipped = {path.relative_to(TOP / "editloop") for path in (TOP / "editloop").rglob("*") if path.is_file()}
    wanted = {path for path in shipped if path.suffix in (".j2", ".css", ".yaml", ".typed", ".safetensors", ".json")}
    assert Path("py.typed") in wanted
    assert [path for path in sorted(wanted) if not (package / path).is_file()] == []


def test_every_public_name_is_there_and_documented() -> None:
    assert dir(editloop) == sorted(editloop.__all__)
    assert [name for name in editloop.__all__ if not (getattr(editloop, name).__doc__ or "").strip()] == []
    with pytest.raises(AttributeError, match="no attribute 'open_juge'"):
        _ = editloop.open_juge


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the plug-in installed."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "project").mkdir()
    (folder / "project" / "team_plugin.py").write_text(PLUGIN)
    (folder / "project" / "pyproject.toml").write_text(PLUGIN_PROJECT)
    install(folder / "project", folder / "site", folder / "copy")
    return folder / "site"


@pytest.fixture
def with_plugin(
    plugin: Path, editloop: EditLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EditLoop]:
    """Calls of the command line, in the test's folder, where the plug-in is installed."""
    monkeypatch.syspath_prepend(str(plugin))
    monkeypatch.chdir(tmp_path)
    yield editloop
    sys.modules.pop("team_plugin", None)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, value in (("source", 100), ("bright", 220), ("dark", 20)):
        Image.new("RGB", (32, 32), (value, value, value)).save(tmp_path / f"{name}.png")
    return tmp_path


def test_a_judge_of_another_package_scores_a_file(with_plugin: EditLoop, pictures: Path) -> None:
    import pyarrow.parquet as parquet

    candidates = [{"image": f"{name}.png", "editor": "us"} for name in ("bright", "dark")]
    row = {"id": "1", "instruction": "brighten", "source": "source.png", "candidates": candidates}
    (pictures / "edits.jsonl").write_text(json.dumps(row))
    for address, order in (("brightness", 1), ("brightness:dark", -1)):
        out = f"{order}.parquet"
        done = with_plugin("score", "--model", address, "--input", "edits.jsonl", "--out", out)
        assert done.returncode == 0, done.stderr
        bright, dark = parquet.read_table(pictures / out)["overall"].to_pylist()
        assert np.sign(bright - dark) == order


def test_a_suite_of_another_package_is_measured(with_plugin: EditLoop, pictures: Path) -> None:
    pairs = [
        {"key": str(number), "instruction": "brighten", "source": "source.png", "left": left, "right": right}
        | {"label": "left" if left == "bright.png" else "right"}
        for number, (left, right) in enumerate([("bright.png", "dark.png"), ("dark.png", "bright.png")])
    ]
    (pictures / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    done = with_plugin(
        "benchmark", "--suite", "team-bench", "--data", ".", "--model", "brightness", "--json", "--out", "bench"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == 1.0


def test_an_editor_of_another_package_edits(with_plugin: EditLoop, tmp_path: Path) -> None:
    from importlib.resources import files

    folder = tmp_path / "team-editor"
    shutil.copytree(str(files("editloop.models.editors") / "weights" / "tiny-editor"), folder)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("FluxKontextPipeline", "TeamPipeline"))
    settings = folder / "editor.json"
    settings.write_text(settings.read_text().replace("FluxKontextPipeline", "TeamPipeline"))
    write_edits(tmp_path / "heldout", 3, 0)
    done = with_plugin(
        "best-of-n",
        "--edits",
        "heldout",
        "--editor",
        str(folder),
        "--judge",
        "b=brightness",
        "--judge",
        "reward=tiny-reward",
        "--made",
        "2",
        "--tasks",
        "3",
        "--steps",
        "2",
        "--out",
        "best",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "best" / "best-of-n.json").read_text())
    assert f"reward: {report['wording of reward']}" in done.stdout
    assert "wording of b" not in report, "a judge of another package has none that is known"


def test_a_plug_in_that_cannot_be_imported_is_one_line(with_plugin: EditLoop, pictures: Path) -> None:
    (pictures / "edits.jsonl").write_text("")
    done = with_plugin("score", "--model", "broken", "--input", "edits.jsonl", "--out", "s.parquet")
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("editloop: editloop.judges broken: team_plugin:nothing_of_this_name of team-plugin")
    done = with_plugin("benchmark", "--suite", "team-banch", "--data", ".", "--model", "b")
    assert "Did you mean team-bench?" in textwrap.dedent(done.stderr)
