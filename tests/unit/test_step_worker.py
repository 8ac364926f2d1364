"""The warm worker of local runs: to those who start a step, a fork of the worker is like a process of its own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.step_worker import warm_steps

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the worker needs Linux")
SECONDS = 20.0
"""Patience with a process that should end soon."""


@pytest.fixture(scope="module")
def interpreter() -> Iterator[str]:
    """What starts steps as forks of a worker that has imported one module."""
    with warm_steps(["wsgiref.validate"]):
        yield sys.executable


def step(interpreter: str, folder: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that runs the code as a module in the folder."""
    (folder / "work.py").write_text(textwrap.dedent(code))
    return subprocess.Popen(
        [interpreter, "-m", "work", *arguments],
        cwd=folder,
        env=os.environ | {"COLOUR": "teal"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_step_has_its_callers_arguments_environment_folder_and_streams(interpreter: str, tmp_path: Path) -> None:
    process = step(
        interpreter,
        tmp_path,
        """
        import os, sys
        print("wsgiref.validate" in sys.modules, sys.argv[1:], os.environ["COLOUR"], os.getcwd(), __name__, input())
        sys.exit("no such task")
        """,
        "a b",
        "ü",
    )
    out, err = process.communicate("a line\n")
    assert out.split("\n")[0] == f"True ['a b', 'ü'] teal {tmp_path} __main__ a line"
    assert err == "no such task\n"
    assert process.returncode == 1


def test_steps_share_no_state_and_draw_different_random_numbers(interpreter: str, tmp_path: Path) -> None:
    code = "import os, random; print(os.environ.setdefault('LEFT', str(random.random())))"
    outputs = {step(interpreter, tmp_path, code).communicate()[0] for _ in range(2)}
    assert len(outputs) == 2


def test_a_signal_to_the_client_reaches_the_step_which_may_still_end_well(interpreter: str, tmp_path: Path) -> None:
    process = step(
        interpreter,
        tmp_path,
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        print("ready")
        while True:  # a signal that comes before `pause` does not end it
            time.sleep(0.05)
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    process.communicate(timeout=SECONDS)
    assert process.returncode == 7


def test_a_step_that_a_signal_ended_has_a_shells_status(interpreter: str, tmp_path: Path) -> None:
    process = step(interpreter, tmp_path, "import os; os.kill(os.getpid(), 9)")
    process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGKILL


def test_a_step_ends_when_its_client_is_killed(interpreter: str, tmp_path: Path) -> None:
    process = step(interpreter, tmp_path, "import os, signal; print(os.getpid()); signal.pause()")
    assert process.stdout is not None
    running = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    running.wait(SECONDS)


def test_the_worker_and_its_steps_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    code = """
        import subprocess, sys
        from pathlib import Path
        from pipelines.step_worker import warm_steps
        Path("step.py").write_text("import os, signal; print(os.getppid(), os.getpid()); signal.pause()")
        with warm_steps(["json"]):
            print(Path(sys.executable).parent, flush=True)
            subprocess.run([sys.executable, "-m", "step"])
        """
    process = step(sys.executable, tmp_path, code)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert folder.is_dir()
    keeper, running = (psutil.Process(int(pid)) for pid in process.stdout.readline().split())
    worker = keeper.parent()
    assert worker is not None
    process.kill()
    process.wait()
    for left in (worker, keeper, running):
        left.wait(SECONDS)
    assert not folder.exists()


def test_without_the_worker_or_for_other_calls_the_interpreter_itself_runs(tmp_path: Path) -> None:
    with warm_steps(["a_module_that_does_not_exist"]):
        time.sleep(0.1)
        process = step(sys.executable, tmp_path, "print('ran')")
        assert process.communicate(timeout=SECONDS)[0] == "ran\n"
        answer = subprocess.run([sys.executable, "-c", "print(1 + 1)"], capture_output=True, text=True, check=True)
        assert answer.stdout == "2\n"
