"""The trainer itself, on one process: whole iterations, what is waited for, checkpoints, memory."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import psutil

from editloop.data.edits_file import EditRow
from editloop.models.judge_protocol import EditGroup, Judge, Score
from editloop.models.lora_settings import LoraSettings
from editloop.training.editor_rl.algorithm_settings import NftSettings
from editloop.training.editor_rl.settings import RlJob, RlSettings, read_rl_preset
from tests.performance.bench import Benchmark, Scale
from tests.performance.rl_speed import BEST_HALF, MEMBERS, NFT, SHARED, TASKS, TOGETHER, WHOLE, WINDOW, WITHOUT_KL, rows

if TYPE_CHECKING:
    from editloop.training.editor_rl.iteration import Iteration
    from editloop.training.editor_rl.loop import Training
    from tests.performance.plain_flow_grpo import PlainFlowGrpo

HIDDEN, CHECKPOINT_SHARE = 0.8, 0.03
NO_SLOWER = 0.9
"""Of the plain way's time over ours, where both do the same work."""
LATENCY_SHARE = 0.5
"""Of a judge elsewhere, in the time that sampling takes."""
ITERATIONS, SETTLED = 1000, 100
"""Iterations that memory is watched over, and those after which it should have settled."""
LONGEST_SECONDS, MOST_ADDED_MEGABYTES = 300.0, 30.0


class Elsewhere:
    """The oracle with a latency for each edit."""

    name = version = "elsewhere"

    def __init__(self, judge: Judge):
        self.judged_by, self.axes, self.seconds, self.slept = judge, judge.axes, 0.0, 0.0
        self.resident: list[int] = []
        """Bytes of memory of this process at each call."""

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        self.resident.append(psutil.Process().memory_info().rss)
        latency = self.seconds * sum(len(group.edits) for group in groups)
        time.sleep(latency)
        self.slept += latency
        return self.judged_by.judge(groups)


@cache
def started() -> None:
    """A job of one rank in this process."""
    from editloop.training.distributed import start_rank

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    start_rank()


def trainer(
    settings: RlSettings,
    folder: Path,
    address: str,
    judge: Judge,
    practised: Sequence[EditRow] | None = None,
    edited_by: str = "tiny-editor",
) -> "Training":
    """A training of an editor with one judge, nothing done yet; on the drawn tasks of `rows` or others."""
    from editloop.training.editor_rl.loop import Training
    from editloop.training.editor_rl.scoring import RewardJudges
    from editloop.training.editor_rl.train import open_prompts, open_rl_editor

    started()
    job = RlJob(
        edits=folder,
        output=folder / "output",
        editor=edited_by,
        rewards={address: 1.0},
        settings=settings,
        checkpoints=folder / "checkpoints",
    )
    editor, trained = open_rl_editor(job.editor, settings)
    teachers = RewardJudges({address: judge}, patience=0)
    prompts = open_prompts(job, practised or rows(), editor)
    return Training(job, editor, trained, prompts, teachers)


def iterations(training: "Training") -> "Iteration":
    """Its iterations, one by one."""
    from editloop.training.distributed import StopRequest
    from editloop.training.editor_rl.iteration import Iteration

    return Iteration(
        training.settings,
        training.editor,
        training.prompts,
        training.reward_judges,
        training.job.rewards,
        training.training_run.engine,
        training.algorithm,
        StopRequest(),
    )


def iterating(settings: RlSettings) -> Callable[[], object]:
    """A function that makes the next iteration of a training of its own on `rows`."""
    from editloop.training.editor_rl.scoring import OracleJudge

    @cache
    def training() -> "Iteration":
        with TemporaryDirectory() as folder:
            return iterations(trainer(settings, Path(folder), "oracle", OracleJudge(rows())))

    numbers = count()
    return lambda: training().run(next(numbers), set(), measured=False)


def plainly_iterating(settings: RlSettings) -> Callable[[], object]:
    """The same, the plain way."""
    from editloop.training.editor_rl.scoring import OracleJudge

    @cache
    def training() -> "PlainFlowGrpo":
        from editloop.models.editors.opening import open_editor
        from tests.performance.plain_flow_grpo import PlainFlowGrpo

        started()
        return PlainFlowGrpo(open_editor("tiny-editor"), rows(), OracleJudge(rows()), settings)

    numbers = count()
    return lambda: training().iteration(next(numbers))


def against_plain(name: str, plain: RlSettings, ours: RlSettings, target: float) -> Callable[[], Benchmark]:
    """Sampling, scoring and updating on 8 tasks of 8 edits: the plain way, and the trainer's."""

    def make() -> Benchmark:
        return Benchmark(f"editor_rl: an iteration, {name}", plainly_iterating(plain), iterating(ours), target)

    return make


def timed_choice(name: str, before: RlSettings, after: RlSettings, target: float) -> Callable[[], Benchmark]:
    """The same of one choice, both ways in the trainer."""

    def make() -> Benchmark:
        return Benchmark(f"editor_rl: an iteration, {name}", iterating(before), iterating(after), target)

    return make


def latency() -> Benchmark:
    """Seconds that a judge elsewhere takes, half of what sampling does, and those of them that are waited for."""
    from editloop.training.editor_rl.scoring import OracleJudge

    @cache
    def measured() -> tuple[float, float]:
        judge = Elsewhere(OracleJudge(rows()))
        settings = read_rl_preset("tiny", tasks=len(rows()))
        with TemporaryDirectory() as folder:
            iterate = iterations(trainer(settings, Path(folder), "http://elsewhere", judge))
        at_once = [iterate.run(number, set(), measured=False).figures for number in range(4)]
        edits = settings.tasks * settings.members
        judge.seconds = LATENCY_SHARE * sorted(one["sampling"] for one in at_once)[1] / edits
        judge.slept = 0.0
        slow = [iterate.run(number, set(), measured=False).figures for number in range(4, 12)]
        waited = sum(one["waiting"] for one in slow) / len(slow) - sorted(one["waiting"] for one in at_once)[1]
        return judge.slept / len(slow), max(waited, 1e-3)

    return Benchmark(
        "editor_rl: seconds of a judge's latency, and those of them that are waited for",
        lambda: measured()[0],
        lambda: measured()[1],
        target=1 / (1 - HIDDEN),
        counted=True,
    )


def checkpoints() -> Benchmark:
    """Seconds of the iterations between two checkpoints, and of a checkpoint, of the demo's training."""
    from editloop.training.editor_rl.scoring import OracleJudge

    @cache
    def measured() -> tuple[float, float]:
        settings = read_rl_preset("tiny")
        with TemporaryDirectory() as folder:
            training = trainer(settings, Path(folder), "oracle", OracleJudge(rows()))
            iterate = iterations(training)
            edits = min(settings.tasks, len(rows()))
            took = sorted(iterate.run(number, set(), measured=False).figures["seconds"] for number in range(5))[2]
            saves = []
            for _ in range(3):
                began = time.perf_counter()
                training.training_run.save()
                saves.append(time.perf_counter() - began)
        return took * settings.tasks / edits * settings.checkpoint_every, sorted(saves)[1]

    return Benchmark(
        "editor_rl: seconds between checkpoints, and of one",
        lambda: measured()[0],
        lambda: measured()[1],
        target=1 / CHECKPOINT_SHARE,
        counted=True,
    )


def memory() -> Scale:
    """1,000 small iterations: megabytes that come to what the first hundred needed."""

    def run() -> dict[str, float]:
        from editloop.training.editor_rl.scoring import OracleJudge

        judge = Elsewhere(OracleJudge(rows()))
        settings = RlSettings(
            iterations=ITERATIONS,
            tasks=2,
            members=2,
            chunks=1,
            sampling_steps=2,
            algorithm=NftSettings(levels=1),
            adapter=LoraSettings(rank=4, alpha=8),
            precision="fp32",
            evaluate_every=ITERATIONS,
            checkpoint_every=SETTLED,
        )
        began = time.perf_counter()
        with TemporaryDirectory() as folder:
            trainer(settings, Path(folder), "http://elsewhere", judge).run(None)
        added = max(judge.resident[SETTLED:]) - max(judge.resident[:SETTLED])
        return {"seconds": time.perf_counter() - began, "megabytes": max(added, 0) / 2**20}

    return Scale(
        "editor_rl scale: 1,000 iterations, and the memory that those after the first 100 add",
        run,
        LONGEST_SECONDS,
        MOST_ADDED_MEGABYTES,
    )


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (
    against_plain("like for like, 7 of 8 steps trained", WHOLE, WHOLE, NO_SLOWER),
    against_plain("like for like, a window of 2", WINDOW, WINDOW, NO_SLOWER),
    timed_choice("7 of 8 steps trained against a window of 2", WHOLE, WINDOW, 1.6),
    timed_choice("noise of each member's own against one noise", WINDOW, SHARED, 1.0),
    timed_choice(f"{TASKS} edits in the network at a time against {TASKS * MEMBERS // 2}", WINDOW, TOGETHER, 1.0),
    timed_choice("Flow-GRPO, 7 of 8 steps trained, against DiffusionNFT at 3 levels", WHOLE, NFT, 1.2),
    timed_choice("DiffusionNFT on all members against half of them", NFT, BEST_HALF, 1.2),
    timed_choice("DiffusionNFT with a KL term against none", BEST_HALF, WITHOUT_KL, 1.05),
    latency,
    checkpoints,
)
