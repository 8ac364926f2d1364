"""Seconds until an editor is better by so much on held-out tasks: the trainer, and plain Flow-GRPO.

Both begin with the shipped editor, practise the same drawn tasks with the same reward, make as many edits an iteration
by as many steps, and are looked at on the same held-out tasks from the same noise; the looks do not count. It is a race
of algorithms and settings, not of two ways to compute the same: like for like an iteration takes as long as the plain
one (`rl_speed`, `rl_trainer`). What differs is all that the trainer's preset chose, DiffusionNFT, half of a group's
members and how many edits are in the network at a time among it. The plain way has the fastest of the learning rates
that were tried. The trainer is looked at by its averaged weights, which lag, the plain way by its own.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from editloop.data.edits_file import EditRow, read_edits
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_rl.settings import RlSettings, read_rl_preset
from tests.performance.bench import Race
from tests.performance.rl_trainer import started, trainer

if TYPE_CHECKING:
    from editloop.evaluation.editors import HeldOut
    from editloop.models.editors.protocol import Editor
    from editloop.training.editor_rl.guards import Verdict

SEEDS = (0, 1, 2)
PRACTISED, HELD_OUT, BATCH = 400, 200, 64
LIFT = 0.03
"""Of the oracle's mean on the held-out tasks, over the base editor's."""
LOOK_EVERY, MOST_ITERATIONS = 2, 100
PATIENCE = 10.0
"""The plain way is given up after so many times the trainer's seconds; its time is then at least that."""
TARGET = 1.8
PLAIN = {
    "algorithm": {
        "name": "flow-grpo",
        "window": 7,
        "window_kind": "fixed",
        "window_range": 7,
        "ratio_clip": (1e-4, 1e-4),
    },
    "advantage_scale": "batch",
    "kl": 0.0,
    "learning_rate": 3e-3,
    "precision": "fp32",
}
"""Flow-GRPO as published, but for what the comparison shares and for what makes it faster here.

Of the learning rates that were tried at seed 0 this one arrives first, and sooner without the published kl of 0.04 than
with it: the published 3e-4 takes several times as long, 1e-3 nearly twice, and at 1e-2 the editor falls apart.
"""


class Stopwatch:
    """Seconds but for those of looks."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    @contextmanager
    def held(self) -> Iterator[None]:
        at = time.perf_counter()
        try:
            yield
        finally:
            self.began += time.perf_counter() - at


class Looking:
    """Ends a training when the editor is better than in the first look by LIFT."""

    def __init__(self, tasks: "HeldOut", stopwatch: Stopwatch):
        self.tasks, self.stopwatch = tasks, stopwatch
        self.scores: list[float] = []
        self.reached: float | None = None
        """Seconds that it took."""

    def evaluate(self, iteration: int, editor: "Editor", training: dict[str, float]) -> "Verdict":
        from editloop.training.editor_rl.guards import Verdict

        seconds = self.stopwatch.seconds
        with self.stopwatch.held():
            self.scores.append(score(self.tasks, editor))
        if self.reached is None and self.scores[-1] >= self.scores[0] + LIFT:
            self.reached = seconds
        ended = self.reached is not None
        return Verdict(ended, False, "good enough" if ended else "", 0, {"oracle": self.scores[-1]})


def score(tasks: "HeldOut", editor: "Editor") -> float:
    """The oracle's mean over held-out tasks, 0..1."""
    from editloop.evaluation.editors import oracle_view

    return float(oracle_view(tasks.cases, tasks.edits(editor)).mean.mean())


def drawn(folder: Path, tasks: int, seed: int) -> list[EditRow]:
    write_edits(folder, tasks, seed)
    return list(read_edits(folder))


def settings_of(seed: int) -> RlSettings:
    return read_rl_preset(
        "tiny",
        precision="fp32",
        seed=seed,
        evaluate_every=LOOK_EVERY,
        iterations=MOST_ITERATIONS,
        checkpoint_every=MOST_ITERATIONS,
    )


def our_seconds(folder: Path, practised: list[EditRow], held_out: list[EditRow], seed: int) -> float:
    """Until the trainer's editor is better by LIFT."""
    from editloop.evaluation.editors import HeldOut
    from editloop.training.editor_rl.scoring import OracleJudge

    settings = settings_of(seed)
    training = trainer(settings, folder, "oracle", OracleJudge(practised), practised)
    tasks = HeldOut(held_out, training.editor, steps=settings.sampling_steps, guidance=None, batch=BATCH)
    looking = Looking(tasks, Stopwatch())
    training.run(looking)
    assert looking.reached is not None, f"not better by {LIFT} in {MOST_ITERATIONS} iterations: {looking.scores}"
    return looking.reached


def plain_seconds(practised: list[EditRow], held_out: list[EditRow], seed: int, most: float) -> float:
    """Until plain Flow-GRPO's editor is better by LIFT, at most `most`."""
    from editloop.evaluation.editors import HeldOut
    from editloop.models.editors.opening import open_editor
    from editloop.training.editor_rl.scoring import OracleJudge
    from tests.performance.plain_flow_grpo import PlainFlowGrpo

    ours = settings_of(seed)
    settings = RlSettings(
        seed=seed,
        tasks=ours.tasks,
        micro_batch=ours.tasks,
        members=ours.members,
        sampling_steps=ours.sampling_steps,
        adapter=ours.adapter,
        **PLAIN,
    )
    started()
    plain = PlainFlowGrpo(open_editor("tiny-editor"), practised, OracleJudge(practised), settings)
    tasks = HeldOut(held_out, plain.editor, steps=settings.sampling_steps, guidance=None, batch=BATCH)
    looking = Looking(tasks, Stopwatch())
    looking.evaluate(0, plain.editor, {})
    for iteration in range(MOST_ITERATIONS):
        plain.iteration(iteration)
        looking.evaluate(iteration + 1, plain.editor, {})
        if looking.reached is not None:
            return looking.reached
        if looking.stopwatch.seconds > most:
            break
    return most


def seconds_of(seed: int) -> tuple[float, float]:
    """Plain, and ours."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        practised = drawn(home / "practised", PRACTISED, 2 * seed + 1000)
        held_out = drawn(home / "held-out", HELD_OUT, 2 * seed + 1001)
        ours = our_seconds(home, practised, held_out, seed)
        return plain_seconds(practised, held_out, seed, PATIENCE * ours), ours


def to_the_same_score() -> Race:
    name = f"editor_rl: seconds to an oracle's score {LIFT:.2f} higher, preset tiny against plain Flow-GRPO"
    return Race(name, seconds_of, SEEDS, TARGET)
