"""Runs the unit tests that need no torch on every other Python that EditLoop supports and this machine has.

    python -m tests.pythons            # as `make test-pythons` runs it
    python -m tests.pythons 3.13       # one version

Each version has an environment of its own, `.venv-3.13` say, with the pinned dependencies but for torch and what is of
no use without it: 0.6 GB instead of 6. A version that is not installed is left out, with a line that says so.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from tests.without_torch import HEAVY

TOP = Path(__file__).parents[1]
CLASSIFIER = re.compile(r"Programming Language :: Python :: (\d+\.\d+)")
FEWEST_FILES = 0.5
"""Share of the files of unit tests that must run: fewer means that something torch-free has come to import torch."""


class Outcome(NamedTuple):
    """How the tests ended on one Python."""

    passed: int
    failed: int
    skipped: int
    files: int
    """Files of which at least one test ran."""

    def faults(self, all_files: int) -> list[str]:
        """Return a sentence for each thing that is wrong.

        Args:
            all_files: How many files of unit tests there are.
        """
        faults = [f"{self.failed} tests failed"] if self.failed else []
        if self.files < FEWEST_FILES * all_files:
            faults.append(f"only {self.files} of {all_files} files ran without torch: which import brought it in?")
        return faults


def supported_pythons(project: dict[str, Any]) -> list[str]:
    """Return the versions of Python that the project's classifiers name, such as `3.12`.

    Args:
        project: The `project` table of pyproject.toml.
    """
    return [match[1] for line in project["classifiers"] if (match := CLASSIFIER.fullmatch(line))]


def light_requirements(project: dict[str, Any]) -> list[str]:
    """Return the requirements of the package and of its tests, without torch and the packages that need it.

    Args:
        project: The `project` table of pyproject.toml.
    """
    requirements = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return [line for line in requirements if _package(line) not in HEAVY]


def _package(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def find_interpreter(version: str) -> str | None:
    """Return a Python that starts and is of a version: the PATH's, or one of pyenv's.

    Args:
        version: Major and minor version, such as `3.12`.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [
        shutil.which(f"python{version}"),
        *map(str, sorted(pyenv.glob(f"{version}*/bin/python"), reverse=True)),
    ]
    code = f"import sys; sys.exit('{version}' != '%d.%d' % sys.version_info[:2])"
    for program in candidates:
        if program and subprocess.run([program, "-c", code], capture_output=True, check=False).returncode == 0:
            return program  # pyenv's stand-in on the PATH may name a version that is not chosen
    return None


def make_environment(version: str, interpreter: str, project: dict[str, Any]) -> Path:
    """Return the Python of a version's environment, which is made anew where the requirements have changed.

    Args:
        version: Major and minor version.
        interpreter: The Python to make it with.
        project: The `project` table of pyproject.toml.
    """
    folder = TOP / f".venv-{version}"
    python, stamp = folder / "bin" / "python", folder / "stamp"
    requirements = light_requirements(project)
    constraints = TOP / "constraints.txt"
    facts = "\n".join([interpreter, *requirements, project["version"], constraints.read_text()])
    digest = hashlib.sha256(facts.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return python
    print(f"{version}: installing into {folder.name}", flush=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [interpreter, "-m", "venv", "--clear", str(folder)],
        [*install, "--upgrade", "pip"],
        [*install, "--constraint", str(constraints), *requirements],
        [*install, "--no-deps", "--editable", str(TOP)],
    ):
        subprocess.run(command, check=True)
    stamp.write_text(digest)
    return python


def run_tests(python: Path, report: Path) -> Outcome:
    """Run the unit tests of `make check` with a Python that has no torch.

    Args:
        python: The environment's interpreter.
        report: Where pytest writes its figures.
    """
    options = ["-q", "-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", "-p", "no:cacheprovider", "-r", "fE"]
    selection = ["-m", "not slow and not extended", "tests/unit"]
    report.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", "-p", "tests.without_torch", *options, f"--junitxml={report}", *selection]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, cwd=TOP, env=environment, check=False)
    if not report.is_file():
        sys.exit(f"{python}: pytest ended with status {done.returncode} before any test")
    outcome = read_report(report)
    return outcome if outcome.failed or not done.returncode else outcome._replace(failed=1)


def read_report(path: Path) -> Outcome:
    """Count the tests of a JUnit report.

    Args:
        path: File that pytest has written.
    """
    failed = skipped = 0
    files = set()
    cases = list(ElementTree.parse(path).iter("testcase"))
    for case in cases:
        if case.find("skipped") is not None:
            skipped += 1
            continue
        failed += case.find("failure") is not None or case.find("error") is not None
        files.add(case.get("classname"))
    return Outcome(len(cases) - failed - skipped, failed, skipped, len(files))


def main(chosen: Iterable[str] = ()) -> int:
    """Run the tests on each version; returns the exit status.

    Args:
        chosen: Versions, or nothing for all but this interpreter's.
    """
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    here = "{}.{}".format(*sys.version_info)
    all_files = len(list((TOP / "tests" / "unit").glob("test_*.py")))
    lines, is_right = [], True
    for version in chosen or [version for version in supported_pythons(project) if version != here]:
        if not (interpreter := find_interpreter(version)):
            lines.append(
                f"Python {version}: SKIPPED, it is not installed; python{version} on the PATH or in pyenv will do"
            )
            continue
        began = time.monotonic()
        outcome = run_tests(make_environment(version, interpreter, project), TOP / "build" / f"tests-{version}.xml")
        faults = outcome.faults(all_files)
        is_right = is_right and not faults
        counts = f"{outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped (they need torch)"
        lines.append("; ".join([f"Python {version}: {counts}, {time.monotonic() - began:.0f} s", *faults]))
        print(lines[-1], flush=True)
    print("\n".join(["", *lines]))
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
