"""The command line: quick to start, one message for what a user can mend."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command

from pipelines import cli
from pipelines.building import build_pipeline
from pipelines.catalogue import PIPELINES, STAGES
from pipelines.compilation import show_parameters
from pipelines.stages import stage_parser

HEAVY = ("torch", "mlflow", "kfp", "dvc", "label_studio_sdk", "transformers", "diffusers", "matplotlib", "pyarrow")


def editloop(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    call = "import sys; from pipelines.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", call, *arguments], capture_output=True, text=True, check=False, **options
    )  # type: ignore[call-overload,no-any-return]


def test_the_command_line_starts_without_the_heavy_parts() -> None:
    call = "import sys, pipelines.cli; print([name for name in sys.modules if '.' not in name])"
    loaded = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True).stdout
    assert not [name for name in HEAVY if f"'{name}'" in loaded]


def test_ctrl_c_is_told_whatever_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("infra.services.stop_services", interrupted)
    monkeypatch.setattr(sys, "argv", ["editloop", "down", "--services", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "editloop: stopped; the same call goes on where it was\n"


def test_help_teaches_every_command() -> None:
    shown = editloop("--help").stdout
    for command in (
        "demo",
        "stage",
        "run",
        "compile",
        "reconcile",
        "verify",
        "up",
        "down",
        "status",
        "doctor",
        "score",
        "serve",
    ):
        assert command in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify", "edit-reward"], "models:/NAME@ALIAS"),
        (["run", "no-such"], "there are collect-preferences"),
        (["run", "improve-editr", "--help"], "Did you mean improve-editor?"),
        (["stage", "no-such"], "there are candidates"),
        (["stage", "rewrd"], "Did you mean reward?"),
        (["demo", "--preset", "huge"], "there are demo, smallest"),
        (["plan", "editreward-tini"], "Did you mean editreward-tiny?"),
    ],
)
def test_a_users_mistake_is_one_message(arguments: list[str], words: str) -> None:
    done = editloop(*arguments, env={"PATH": "/usr/bin:/bin", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_faulty_edits_file_stops_the_demo_before_anything_is_written(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    rows = [
        {"id": "1", "instruction": "", "source": "a.png"},
        {"id": "2", "instruction": "do", "source": "gone.png"},
        {"id": "2", "instruction": "do", "source": "a.png", "colour": "red"},
    ]
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = editloop("demo", "--edits", str(tmp_path / "edits.jsonl"), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    for line in ("edits.jsonl:1", "edits.jsonl:2", "edits.jsonl:3"):
        assert line in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["demo.lock"]


def test_help_begins_with_where_to_start_and_every_command_is_in_a_group() -> None:
    shown = editloop("-h").stdout
    groups = ("Start here", "Data and people", "Train", "Evaluate", "Registry and lineage", "Services")
    places = [shown.index(group) for group in groups]
    assert places == sorted(places)
    assert places[0] < shown.index("│ demo ") < shown.index("│ doctor ") < places[1]
    assert "─ Commands ─" not in shown, "a command without a group"


def test_the_version_is_that_of_the_package() -> None:
    assert editloop("--version").stdout == f"editloop {version('editloop')}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scor"], "Did you mean 'score'"),
        (["score", "--modl", "x"], "No such option: --modl"),
        (["stage", "reward", "--epoch", "3", "--dataset", "d", "--output", "o"], "unrecognized arguments: --epoch 3"),
    ],
)
def test_a_misspelt_name_is_told(arguments: list[str], words: str) -> None:
    done = editloop(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_help_explains_every_option_and_has_an_example(stage: str) -> None:
    parser = stage_parser(STAGES[stage])
    assert [action.dest for action in parser._actions if not action.help] == []
    example = shlex.split(str(parser.epilog).removeprefix("For example: "))
    assert example[:3] == ["editloop", "stage", stage]
    parser.parse_args(example[3:])


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pipelines_help_explains_every_parameter(pipeline: str, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = PIPELINES[pipeline].form
    assert [entry.name for entry in parameters] == list(build_pipeline(pipeline).component_spec.inputs)
    assert [entry.name for entry in parameters if not entry.help] == []
    show_parameters(pipeline)
    assert f"Parameters of {pipeline}" in capsys.readouterr().out


def test_out_is_where_results_go_and_services_is_whose_services(tmp_path: Path) -> None:
    """In every command: an --out that named services elsewhere would be another meaning of the word."""
    for command, option in _options(get_command(cli.app), ()):
        if "--out" in option.opts:
            assert "services are used" not in str(option.help), command
        if "--services" in option.opts:
            assert option.opts == ["--services"], command


def _options(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, member in getattr(command, "commands", {}).items():
        yield from _options(member, (*path, name))
    yield from ((path, option) for option in command.params)


@pytest.mark.parametrize("command", [["registry"], ["verify", "models:/edit-reward@champion"], ["reconcile", "--once"]])
def test_a_dead_server_is_told_at_once(command: list[str]) -> None:
    began = time.monotonic()
    done = editloop(*command, env={"PATH": "/usr/bin:/bin", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert done.returncode == 1
    assert done.stderr.startswith("editloop: MLFLOW_TRACKING_URI=http://127.0.0.1:9: nothing answers there")
    assert time.monotonic() - began < 60, "far less than MLflow's retries"
