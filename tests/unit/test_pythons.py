"""The tests on other Pythons: what is installed for them, what is left out, and that the versions agree everywhere."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from infra.doctor import PYTHONS
from tests import pythons
from tests.pythons import Outcome, find_interpreter, light_requirements, read_report, supported_pythons
from tests.without_torch import HEAVY

TOP = Path(__file__).parents[2]
WITHOUT = """
import sys
sys.modules["torch"] = None    # an import of it fails as if it were not installed

import pytest
sys.exit(pytest.main(["-p", "tests.without_torch", "-p", "no:cacheprovider", "-q", "-c", sys.argv[1], *sys.argv[2:]]))
"""
TESTS = {
    "test_file.py": "import torch\ndef test_it(): raise AssertionError\n",
    "test_light.py": """
import pytest

def test_passes(): pass

def test_needs_it_late():
    import torch.nn

def test_needs_it_behind_another_error():
    try:
        import torch
    except ImportError as error:
        raise RuntimeError("no editor") from error

@pytest.mark.needs_torch
def test_says_so(): raise AssertionError
""",
}
FAULTS = {
    "test_another_package.py": "import no_such_package\n",
    "test_wrong.py": "def test_wrong(): assert 1 == 2\n",
}


@pytest.fixture
def project() -> dict[str, Any]:
    return dict(tomllib.loads((TOP / "pyproject.toml").read_text())["project"])


def run_without_torch(folder: Path, files: dict[str, str]) -> Outcome:
    """Run files of tests in a process that has no torch."""
    settings, report = folder / "pytest.ini", folder / "report.xml"
    settings.write_text("[pytest]\nmarkers = needs_torch\n")
    for name, text in files.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-c", WITHOUT, str(settings), f"--junitxml={report}", "--rootdir", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}  # of this run alone
    subprocess.run([*command, str(folder)], cwd=TOP, capture_output=True, check=False, env=environment)
    return read_report(report)


def test_what_needs_torch_is_skipped_and_the_rest_runs(tmp_path: Path) -> None:
    assert run_without_torch(tmp_path, TESTS) == Outcome(passed=1, failed=0, skipped=4, files=1)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_other_fault_still_fails(fault: str, tmp_path: Path) -> None:
    assert run_without_torch(tmp_path, {fault: FAULTS[fault]})[:3] == (0, 1, 0)


def test_too_few_files_are_a_fault() -> None:
    assert Outcome(9, 0, 1, files=5).faults(all_files=10) == []
    assert Outcome(9, 0, 1, files=4).faults(all_files=10) == [
        "only 4 of 10 files ran without torch: which import brought it in?"
    ]
    assert Outcome(9, 2, 1, files=5).faults(all_files=10) == ["2 tests failed"]


def test_the_light_environment_has_all_but_torch_and_what_needs_it(project: dict[str, Any]) -> None:
    light = light_requirements(project)
    everything = {*project["dependencies"], *project["optional-dependencies"]["dev"]}
    assert {"torch", "deepspeed", "transformers"} <= HEAVY
    assert sorted(line.split(">")[0].split("=")[0] for line in everything - set(light)) == sorted(HEAVY)
    assert [line for line in light if line.startswith(("mlflow", "pytest-xdist"))]


def test_one_list_of_pythons(project: dict[str, Any]) -> None:
    """The classifiers, requires-python and `editloop doctor` name the same versions."""
    minors = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in SpecifierSet(project["requires-python"])]
    assert supported_pythons(project) == minors
    assert [".".join(map(str, pair)) for pair in PYTHONS] == minors


def test_a_python_that_is_not_installed_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pythons, "find_interpreter", lambda version: None)
    assert pythons.main(["3.12", "3.13"]) == 0
    printed = capsys.readouterr().out
    assert "Python 3.12: SKIPPED, it is not installed" in printed
    assert "Python 3.13: SKIPPED, it is not installed" in printed


def test_a_stand_in_that_does_not_start_is_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = "{}.{}".format(*sys.version_info)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    program = tmp_path / f"python{here}"
    program.write_text("#!/bin/sh\nexit 127\n")
    program.chmod(0o755)
    assert find_interpreter(here) is None
    program.unlink()
    program.symlink_to(sys.executable)
    assert find_interpreter(here) == str(program)
    program.rename(tmp_path / "python9.9")
    assert find_interpreter("9.9") is None


def test_the_version_is_the_changelogs_latest(project: dict[str, Any]) -> None:
    headings = [line for line in (TOP / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    released = [heading.removeprefix("## ").split()[0] for heading in headings if heading != "## Unreleased"]
    assert released[0] == project["version"] == version("editloop")
