"""Launching: ranks run and end together, failures say why."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from editloop.errors import EditLoopError
from editloop.training.launch import NODES_FILE, JoinedTraining, join_training, launch_ranks
from infra.launch import launch
from tests.forked_ranks import free_port

RANK = """
import os, sys, time
sys.stdout.write(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} {sys.argv[1]}\\n")
if sys.argv[1] == "fail":
    sys.exit("the disk is full")
if sys.argv[1] == "sleep":
    open("pid" + os.environ["RANK"], "w").write(str(os.getpid()))
    time.sleep(600)
if sys.argv[1].endswith("job.json"):
    import psutil, torch, torch.distributed as distributed
    distributed.init_process_group("gloo")
    if distributed.get_rank() == 0:
        agent = psutil.Process().parent()
        opened = [one for process in (agent, *agent.children()) for one in process.net_connections()]
        print("listens", *{one.laddr.ip for one in opened if one.status == "LISTEN"})
    while os.path.exists(os.path.dirname(sys.argv[1]) + "/go-on"):
        distributed.all_reduce(torch.ones(1))
        time.sleep(0.1)
        open("pid" + os.environ["RANK"], "w").write(str(os.getppid()))
    distributed.destroy_process_group()
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


@pytest.mark.needs_torch
@pytest.mark.skipif(sys.platform != "linux", reason="the loopback's name is Linux's")
def test_ranks_of_one_machine_listen_on_its_loopback_alone(
    rank_module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch("a_rank", rank_module / "job.json", processes=2)
    assert "listens 127.0.0.1\n" in capsys.readouterr().out


@pytest.mark.needs_torch
def test_the_store_of_a_judge_in_several_processes_listens_on_the_loopback_alone() -> None:
    from editloop.training.agent import LoopbackRendezvous

    before = {one.laddr for one in psutil.Process().net_connections() if one.status == psutil.CONN_LISTEN}
    store = LoopbackRendezvous("judge")
    opened = {one.laddr for one in psutil.Process().net_connections() if one.status == psutil.CONN_LISTEN} - before
    assert [(one.ip, one.port) for one in opened] == [("127.0.0.1", store.master_port)]


@pytest.mark.needs_torch
def test_ranks_end_when_their_agent_is_killed(rank_module: Path) -> None:
    call = "from infra.launch import launch; from pathlib import Path; launch('a_rank', Path('sleep'), processes=2)"
    with subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.DEVNULL, cwd=rank_module) as launcher:
        pids = [rank_module / f"pid{rank}" for rank in range(2)]
        _until(lambda: all(path.is_file() and path.read_text() for path in pids), 60)
        (agent,) = psutil.Process(launcher.pid).children()
        agent.kill()
        try:
            assert launcher.wait(60)
        finally:
            launcher.kill()
    assert not any(_alive(int(path.read_text())) for path in pids)


@pytest.mark.needs_torch
def test_two_machines_share_the_ranks_and_where_one_dies_the_other_says_so_in_one_line(
    rank_module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two agents of torchrun on the loopback, as on two machines with a shared disk."""
    job = rank_module / "job.json"
    (rank_module / "go-on").touch()
    monkeypatch.chdir(rank_module)
    monkeypatch.setenv("EDITLOOP_NODES", "2")
    monkeypatch.setenv("EDITLOOP_RENDEZVOUS", f"127.0.0.1:{free_port()}")
    code = "import sys; from pathlib import Path; from editloop.training.launch import "
    first = code + "launch_ranks; launch_ranks('a_rank', Path(sys.argv[1]), processes=2)"
    other = code + "join_training; join_training(Path(sys.argv[1]), 1)"
    with _python(first, job) as one:
        _until((rank_module / NODES_FILE).is_file, 60)
        with _python(other, job) as two:
            pids = [rank_module / f"pid{rank}" for rank in range(2)]
            _until(lambda: all(path.is_file() and path.read_text() for path in pids), 60)
            psutil.Process(int(pids[1].read_text())).kill()
            _, words = one.communicate(timeout=60)
            two.communicate(timeout=60)
    assert one.returncode == 1
    assert two.returncode
    assert words.splitlines()[-1].startswith("editloop.errors.EditLoopError: rank 0: lost the connection")


@pytest.mark.parametrize(
    ("settings", "node", "reason"),
    [
        ({"EDITLOOP_NODES": "2"}, None, "EDITLOOP_RENDEZVOUS is not set"),
        ({"EDITLOOP_NODES": "3", "EDITLOOP_RENDEZVOUS": "here:1"}, None, "2 processes on 3 nodes"),
        ({"EDITLOOP_RENDEZVOUS": "here"}, None, "EDITLOOP_RENDEZVOUS"),
        ({}, 1, "Start the training with EDITLOOP_NODES"),
        ({}, 2, "node 2: the training has 2 machines"),
    ],
)
def test_machines_that_do_not_fit_are_refused(
    settings: dict[str, str], node: int | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    if node == 2:
        training = JoinedTraining(module="m", nodes=2, processes=1, rendezvous="here:1")
        (tmp_path / NODES_FILE).write_text(training.model_dump_json())
    start = partial(join_training, node=node) if node else partial(launch_ranks, "a_rank", processes=2)
    with pytest.raises(EditLoopError, match=reason):
        start(job_file=tmp_path / "job.json")


def _python(code: str, job: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(job)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


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


def _until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.1)
