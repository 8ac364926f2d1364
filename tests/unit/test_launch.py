"""Launching: ranks run and end together, failures say why."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from editloop.errors import EditLoopError
from infra.launch import launch

RANK = """
import os, sys, time
sys.stdout.write(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} {sys.argv[1]}\\n")
if sys.argv[1] == "fail":
    sys.exit("the disk is full")
if sys.argv[1] == "sleep":
    open("pid" + os.environ["RANK"], "w").write(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture
def rank_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a_rank.py").write_text(RANK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


@pytest.mark.needs_torch
def test_all_ranks_run_and_are_heard(rank_module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch("a_rank", Path("go"), processes=2)
    assert sorted(line for line in capsys.readouterr().out.splitlines() if line.startswith("rank")) == [
        "rank 0 of 2 go",
        "rank 1 of 2 go",
    ]


@pytest.mark.needs_torch
def test_a_failed_rank_is_an_error_with_its_own_words(rank_module: Path) -> None:
    with pytest.raises(EditLoopError, match="the disk is full") as raised:
        launch("a_rank", Path("fail"), processes=2)
    assert "elastic_launch" not in str(raised.value)


@pytest.mark.needs_torch
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_ranks_end_when_the_launching_process_is_killed(rank_module: Path) -> None:
    call = "from infra.launch import launch; from pathlib import Path; launch('a_rank', Path('sleep'), processes=2)"
    launcher = subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.DEVNULL, cwd=rank_module)
    pids = [rank_module / f"pid{rank}" for rank in range(2)]
    _until(lambda: all(path.is_file() and path.read_text() for path in pids), 60)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    _until(lambda: not any(_alive(int(path.read_text())) for path in pids), 60)


def test_a_step_ends_with_the_process_that_supervises_it() -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    call = "from editloop.processes import end_with_supervisor; end_with_supervisor(); import time; time.sleep(600)"
    step = subprocess.Popen(
        [sys.executable, "-c", call], env=os.environ | {"EDITLOOP_SUPERVISOR_PID": str(supervisor.pid)}
    )
    time.sleep(1)
    assert step.poll() is None
    supervisor.kill()
    supervisor.wait()
    assert step.wait(timeout=30) != 0


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _until(holds, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.1)
