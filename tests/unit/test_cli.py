"""The command line: quick to start, one message for what a user can mend."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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
        (["stage", "no-such"], "there are candidates"),
        (["demo", "--preset", "huge"], "there are demo, smallest"),
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
