"""Input paths of stages and commands: one line that names the parameter, the path and the next step, never a traceback.

The command line runs in this process, by its own entry point.
"""

import argparse
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import typer

from editloop.content import MANIFEST, complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.lineage.stage_inputs import EDITS, FILES, FOLDERS
from pipelines.catalogue import STAGES
from pipelines.cli import app, main
from pipelines.stages import stage_parser

WRITTEN = ("out", "output", "remove", "version")
"""Parameters of commands that are written to."""
SERVICES = ("out", "services")
"""Folders of the services that a command works with; `services_of` checks them."""
NEXT_STEPS = ("Correct the path", "Give ", "Run that step again", "run the step", "Make it again or restore it")


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of `editloop ARGUMENTS`; an exception that is no EditLoopError fails the test."""
    monkeypatch.setattr(sys, "argv", ["editloop", *arguments])
    try:
        return int(main() or 0)
    except SystemExit as end:
        return int(end.code or 0)


def complete(path: Path, holds: tuple[str, ...] = ()) -> Path:
    """A complete folder that holds files of these names."""
    with complete_folder(path) as folder:
        for name in holds:
            (folder / name).write_text("")
    return path


def _corrupt(manifest: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        complete(path)
        (path / MANIFEST).write_text(manifest)
        return path

    return make


def _file(path: Path) -> Path:
    path.write_text("")
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


FAULTS: dict[str, Callable[[Path], Path]] = {
    "missing": lambda path: path,
    "too long": lambda path: path / ("x" * 300),
    "a file": _file,
    "no manifest": _folder,
    "manifest no JSON": _corrupt("{"),
    "manifest no object": _corrupt("[]"),
    "manifest without facts": _corrupt('{"sha256": "0", "files": {}}'),
    "another folder": complete,
}
"""What can be wrong with a folder, by name: each makes the path."""


def faults_of(check: str) -> tuple[str, ...]:
    """The faults that a kind of input must refuse; a folder without characteristic files takes any complete one."""
    if check == "file":
        return "missing", "too long", "no manifest"
    if check == "edits":
        return "missing", "too long", "manifest no JSON", "manifest no object", "manifest without facts"
    if check == "folder":
        return "missing", "too long", "a file"
    return tuple(fault for fault in FAULTS if FOLDERS[check].holds or fault != "another folder")


class StageInput(NamedTuple):
    """An input of a stage."""

    stage: str
    name: str

    @property
    def check(self) -> str:
        return "file" if self.name in FILES else "edits" if self.name in EDITS else self.name


def stage_inputs() -> Iterator[StageInput]:
    for stage in STAGES.values():
        yield from (StageInput(stage.name, file.argument) for file in stage.inputs)


def _is_path(action: argparse.Action) -> bool:
    return getattr(action.type, "__name__", "") in ("_absolute", "Path")


def stage_arguments(folder: Path, stage: str, bad: str, path: Path) -> list[str]:
    """All that the stage needs, in good order but for the input `bad`, which is `path`."""
    arguments = ["stage", stage]
    for action in stage_parser(STAGES[stage])._actions:
        value = "111"
        if _is_path(action):
            value = str(path if action.dest == bad else _good(folder, action.dest))
        if action.required:
            arguments += [f"--{action.dest.replace('_', '-')}", value]
    return arguments


def _good(folder: Path, name: str) -> Path:
    if name in FOLDERS:
        return complete(folder / name, FOLDERS[name].holds)
    return complete(folder / name) if name in EDITS else _file(folder / name)


STAGE_CASES = [(stage_input, fault) for stage_input in stage_inputs() for fault in faults_of(stage_input.check)]


def refused(arguments: list[str], name: str, path: Path, monkeypatch: Any, capsys: Any) -> str:
    """The one line on stderr by which `editloop ARGUMENTS` refuses the path; checks what every such line says."""
    assert run(arguments, monkeypatch) == 1
    lines: list[str] = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("editloop: ")
    assert f"{name} {path}" in lines[0]
    assert any(step in lines[0] for step in NEXT_STEPS)
    return lines[0]


def test_every_stage_has_inputs_and_every_one_is_of_a_known_kind() -> None:
    assert {stage_input.stage for stage_input in stage_inputs()} == set(STAGES)
    assert {stage_input.name for stage_input in stage_inputs()} == {*FOLDERS, *FILES, *EDITS}


@pytest.mark.parametrize(
    ("stage_input", "fault"), STAGE_CASES, ids=[f"{case.stage}-{case.name}-{fault}" for case, fault in STAGE_CASES]
)
def test_a_stage_refuses_an_input_that_is_not_there_or_not_of_its_kind(
    stage_input: StageInput,
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = FAULTS[fault](tmp_path / "bad")
    (tmp_path / "good").mkdir()
    arguments = stage_arguments(tmp_path / "good", stage_input.stage, stage_input.name, path)
    refused(arguments, f"stage {stage_input.stage}: --{stage_input.name}", path, monkeypatch, capsys)


@pytest.mark.parametrize(
    "stage_input",
    [case for case in stage_inputs() if case.name not in FILES],
    ids=lambda case: f"{case.stage}-{case.name}",
)
@pytest.mark.parametrize("fault", ["changed", "removed", "added"])
def test_a_stage_refuses_a_folder_whose_files_are_not_those_of_its_manifest(
    stage_input: StageInput,
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = complete(tmp_path / "bad", (*FOLDERS.get(stage_input.name, FOLDERS["model"]).holds, "ratings"))
    if fault == "removed":
        (path / "ratings").unlink()
    else:
        (path / ("ratings" if fault == "changed" else "more")).write_text("4")
    (tmp_path / "good").mkdir()
    arguments = stage_arguments(tmp_path / "good", stage_input.stage, stage_input.name, path)
    line = refused(arguments, f"stage {stage_input.stage}: --{stage_input.name}", path, monkeypatch, capsys)
    assert f"changed since it was written: {'more' if fault == 'added' else 'ratings'}" in line


def test_good_inputs_are_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stages go on to MLflow, which has no address here."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for stage in STAGES:
        (tmp_path / stage).mkdir()
        assert run(stage_arguments(tmp_path / stage, stage, "", Path()), monkeypatch) == 1
        assert capsys.readouterr().err.startswith("editloop: MLFLOW_TRACKING_URI is not set.")


class Option(NamedTuple):
    """A parameter of a command that takes a path."""

    words: tuple[str, ...]
    """The command, as `campaign`, `open`."""
    parameter: str
    name: str
    """As the user writes it: an option, or an argument as the help shows it."""
    before: tuple[str, ...]
    """Arguments that stand before it."""
    after: tuple[str, ...] = ()
    """Arguments that the command needs after it."""

    def arguments(self, path: Path) -> list[str]:
        """The command with this path alone."""
        return [*self.words, *([self.name] if self.name.startswith("-") else self.before), str(path), *self.after]


def commands(group: typer.Typer, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    """Every command of the command line: its words and its function."""
    for command in group.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.strip("_").replace("_", "-")
        yield (*words, name), command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, (*words, str(inner.name)))


def path_options() -> Iterator[Option]:
    for words, function in commands(app):
        before: tuple[str, ...] = ()
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            kind, *details = get_args(parameter.annotation) or (parameter.annotation,)
            is_argument = any(isinstance(detail, typer.models.ArgumentInfo) for detail in details)
            if kind in (Path, Path | None):
                declared = [word for detail in details for word in (detail.default, *(detail.param_decls or ()))]
                own = [word for word in declared if str(word).startswith("--")]  # typer keeps the first as the default
                option = own[0] if own else f"--{name.replace('_', '-')}"
                yield Option(words, name, name.upper() if is_argument else option, before)
            before = (*before, "x") if is_argument else before


AFTER = {("join",): ("1",), ("restore",): ("a-backup", "--from", "backups")}
"""By command: what it needs after the path."""
OPTIONS = [option._replace(after=AFTER.get(option.words, ())) for option in path_options()]
INPUTS = [option for option in OPTIONS if option.parameter not in (*WRITTEN, *SERVICES)]
READ_OR_WRITTEN = [(("ratings", "import"), "candidates")]
"""Read for one format and written for another: checked in the command."""
CHECKED = [option for option in INPUTS if (option.words, option.parameter) not in READ_OR_WRITTEN]


def test_every_command_that_takes_an_input_path_is_known() -> None:
    assert {option.words for option in CHECKED} == {
        ("demo",),
        ("score",),
        ("best-of-n",),
        ("benchmark",),
        ("benchmark-editor",),
        ("join",),
        ("leaks",),
        ("dataset", "export"),
        ("editor", "add"),
        ("editor", "export"),
        ("judge", "export"),
        ("judge", "add", "editreward"),
        ("judge", "add", "editscore"),
        ("agreement",),
        ("campaign", "open"),
        ("campaign", "simulate"),
        ("campaign", "report"),
        ("campaign", "propose"),
        ("edits", "import"),
        ("ratings", "import"),
        ("ratings", "export"),
        ("restore",),
        ("teacher", "import"),
        ("teacher", "publish"),
    }


@pytest.mark.parametrize("option", CHECKED, ids=lambda option: "-".join((*option.words, option.name)))
def test_a_command_refuses_an_input_path_that_is_not_there(
    option: Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "gone", tmp_path / ("x" * 300)):
        refused(option.arguments(path), option.name, path, monkeypatch, capsys)


FOLDER_COMMANDS = {
    ("campaign", "propose", "POOL"): "candidates",
    ("campaign", "propose", "--dataset"): "dataset",
    ("campaign", "simulate", "FOLDER"): "campaign",
    ("campaign", "simulate", "--candidates"): "candidates",
    ("campaign", "report", "--candidates"): "candidates",
    ("ratings", "export", "JUDGEMENTS"): "judgements",
    ("ratings", "export", "--candidates"): "candidates",
    ("dataset", "export", "DATASET"): "dataset",
    ("editor", "export", "MODEL"): "editor",
    ("editor", "export", "--evidence"): "benchmark",
    ("leaks", "--dataset"): "dataset",
    ("benchmark", "--training"): "dataset",
    ("demo", "--edits"): "edits",
    ("score", "--input"): "edits",
    ("edits", "import", "PATH"): "edits",
    ("campaign", "open", "FILE"): "file",
    ("teacher", "import", "FILE"): "file",
    ("teacher", "publish", "FOLDER"): "dataset",
    ("agreement", "FILE"): "file",
    ("benchmark", "--scores"): "file",
    ("editor", "add", "FOLDER"): "folder",
}
"""Commands' inputs by what they must be."""
COMMAND_CASES = [(words, fault) for words, check in FOLDER_COMMANDS.items() for fault in faults_of(check)]


@pytest.mark.parametrize(
    ("words", "fault"), COMMAND_CASES, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_a_command_refuses_an_input_of_another_kind(
    words: tuple[str, ...],
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = FAULTS[fault](tmp_path / "bad")
    (option,) = [option for option in CHECKED if (*option.words, option.name) == words]
    refused(option.arguments(path), option.name, path, monkeypatch, capsys)


def test_ratings_of_a_table_need_the_candidates_that_they_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "ratings.csv"
    table.write_text("item,rater,if,vq\n")
    for fault, make in FAULTS.items():
        path = make(tmp_path / fault)
        arguments = ["ratings", "import", str(table), "--candidates", str(path), "--out", str(tmp_path / "out")]
        refused(arguments, "--candidates", path, monkeypatch, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.needs_torch
def test_a_dataset_without_judged_tasks_proposes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, taught = complete(tmp_path / "pool", FOLDERS["candidates"].holds), complete(tmp_path / "taught")
    arguments = ["campaign", "propose", str(pool), "--dataset", str(taught), "--output", str(tmp_path / "next")]
    refused(arguments, "--dataset", taught, monkeypatch, capsys)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("too long", "another folder")])
def test_a_manifest_that_cannot_be_read_is_one_line(fault: str, tmp_path: Path) -> None:
    path = FAULTS[fault](tmp_path / "bad")
    with pytest.raises(EditLoopError) as raised:
        read_manifest(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
