"""The iterations of an online RL training: DeepSpeed, moving averages, evaluation, checkpoints, curves.

Nothing random is carried from iteration to iteration: tasks, windows and noise follow from (seed, iteration). So a
checkpoint is weights, optimiser states, the moving averages and a number, and going on from it repeats what an unbroken
training would have done.
"""

import time
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from components.editor_rl.iteration import Iteration, Stopped, UntaughtError
from components.editor_rl.prompts import Prompts
from components.editor_rl.scoring import Teachers
from components.editor_rl.settings import SAME_RESULT, RlJob, RlSettings
from components.editor_rl.updates import Weights
from components.editor_rl.watch import Verdict
from components.editors.protocol import Editor
from components.training import checkpoint
from components.training.checkpoint import Progress
from components.training.curves import Curves
from components.training.folder_lock import hold
from components.training.loop import STOPPED
from components.training.memory import BUCKET
from components.training.ranks import StopRequest, agreed, total
from infra.content import sha256_json
from infra.errors import EditLoopError

PACE_SECONDS = 10.0
"""Between two lines of progress."""


class Watching(Protocol):
    """What evaluates and guards a training (components.editor_rl.watch)."""

    def look(self, iteration: int, editor: Editor, training: dict[str, float]) -> Verdict: ...


class Improved(NamedTuple):
    """What a finished training leaves, on every rank."""

    history: dict[str, list[dict[str, float]]]
    """`steps` and `evaluations`, each with its `step`; `solved` tasks; `ended` where a guard stopped it. `evaluations`
    come last: DVC draws the last list of a file."""
    reason: str
    """Why it was stopped early; empty where it came to its end."""


def start_engine(settings: RlSettings, network: nn.Module, trained: list[nn.Parameter], *, universal: bool) -> Any:
    """DeepSpeed's engine with AdamW; a step's passes are as many as the caller makes before `step`."""
    import deepspeed

    optimiser = torch.optim.AdamW(
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=torch.cuda.is_available()
    )
    count = sum(parameter.numel() for parameter in trained)  # the default bucket is 2 GB of a GPU, whatever is trained
    engine, *_ = deepspeed.initialize(
        model=network,
        optimizer=optimiser,
        config={
            "train_batch_size": distributed.get_world_size(),
            "train_micro_batch_size_per_gpu": 1,
            "managed_gradient_accumulation": False,
            "gradient_clipping": settings.gradient_clip,
            "zero_optimization": {"stage": settings.zero_stage, "reduce_bucket_size": min(BUCKET, count)},
            "zero_allow_untested_optimizer": True,
            "checkpoint": {"load_universal": universal},
            "steps_per_print": 2**31,
        },
    )
    return engine


def identity_of(job: RlJob, prompts: Prompts, teachers: Teachers) -> str:
    """What a training is: another identity is another training, whose checkpoints are of no use to it."""
    judges = [[judge.name, judge.version, job.rewards[address]] for address, judge in teachers.judges.items()]
    settings = job.settings.model_dump(mode="json", exclude=set(SAME_RESULT))
    return sha256_json([settings, job.facts, judges, [row.id for row in prompts.rows]])


class Training:
    """One call of a training on one rank."""

    def __init__(
        self, job: RlJob, editor: Editor, trained: list[nn.Parameter], prompts: Prompts, teachers: Teachers
    ):  # fmt: skip
        """Starts the engine, and goes on where an earlier call with the same settings was."""
        self.job, self.settings, self.editor, self.prompts, self.teachers = job, job.settings, editor, prompts, teachers
        self.first, ranks = distributed.get_rank() == 0, distributed.get_world_size()
        if min(len(prompts), job.settings.tasks) < ranks:
            raise EditLoopError(
                f"{job.edits}: {len(prompts)} tasks to practise, {job.settings.tasks} an iteration, for {ranks} "
                "processes: each needs one. Give more tasks, or fewer processes."
            )
        job.checkpoints.mkdir(parents=True, exist_ok=True)
        hold(job.checkpoints, first=self.first)
        self.identity = identity_of(job, prompts, teachers)
        found = checkpoint.newest(job.checkpoints, self.settings.zero_stage, identity=self.identity)
        self.engine = start_engine(
            self.settings, editor.network, trained, universal=found is not None and found.as_universal
        )
        self.weights = Weights(trained)
        self.old, self.averages = self.weights.copy(), self.weights.copy()
        self.progress = Progress(0, {"solved": [], "ended": [], "steps": [], "evaluations": []})
        if found:
            self.progress = checkpoint.load(self.engine, found)
            self._put_beside(checkpoint.read_beside(found))
        self.reason = ""
        self._began, self._told, self._from = time.monotonic(), time.monotonic(), self.progress.step

    def run(self, watch: Watching | None) -> Improved:
        """All iterations that are left. `watch` is rank 0's. SystemExit after SIGTERM was answered with a checkpoint.

        At the end the editor has the averaged weights, or where a guard stopped the training the best ones.
        """
        curves = None
        if self.first:
            told = self.settings.model_dump(mode="json")
            curves = Curves(self.job.checkpoints, self.progress.step, told, self.job.facts)
        try:
            with StopRequest() as stop:
                self._go_on(watch, curves, stop)
        finally:
            self.teachers.close()
            if curves:
                curves.close()
        self.weights.swap(self.averages)
        return Improved(self.progress.history, self.reason)

    def _go_on(self, watch: Watching | None, curves: Curves | None, stop: StopRequest) -> None:
        settings, history = self.settings, self.progress.history
        iterate = Iteration(
            settings, self.editor, self.prompts, self.teachers, self.job.rewards, self.engine, self.weights, self.old,
            stop,
        )  # fmt: skip
        if not history["evaluations"]:
            self._evaluate(watch, curves)
        while self.progress.step < settings.iterations and not history["ended"]:
            solved = {int(one["task"]) for one in history["solved"]}
            if len(self.prompts) - len(solved) < distributed.get_world_size():
                self._end(f"all but {len(self.prompts) - len(solved)} of {len(self.prompts)} tasks are solved")
                break
            step = self.progress.step + 1
            looked_at = step == settings.iterations or step % settings.evaluate_every == 0
            try:
                done = iterate.run(self.progress.step, solved, measured=looked_at)
            except Stopped:
                self._leave()
            except UntaughtError:
                self._save()
                raise
            if settings.algorithm == "nft":
                self.weights.follow(self.old, settings.old_decay)
            self.weights.follow(self.averages, min(settings.average, step / (9 + step)))
            history["steps"].append({"step": step, **done.figures})
            history["solved"] += [{"step": step, "task": task} for task in done.solved]
            self.progress = Progress(step, history)
            self._tell(done.figures, curves)
            last = step == settings.iterations
            if looked_at:
                self._evaluate(watch, curves)
            self._check_missing(iterate)
            (asked,) = total([float(stop.asked)])
            if last or asked or history["ended"] or step % settings.checkpoint_every == 0:
                self._save()
            if asked and not last and not history["ended"]:
                self._leave(saved=True)

    def _evaluate(self, watch: Watching | None, curves: Curves | None) -> None:
        """Have the averaged editor looked at; keep it where it is the best so far, end where a guard says so."""
        step, history = self.progress.step, self.progress.history
        self.weights.swap(self.averages)
        try:
            verdict: Verdict | None = agreed(watch.look(step, self.editor, self._lately()) if watch else None)
            if verdict is None:
                return
            if verdict.best:
                checkpoint.keep_best(self.engine, self.job.checkpoints, step)
        finally:
            self.weights.swap(self.averages)
        history["evaluations"].append({"step": step, **verdict.figures})
        if curves:
            curves.add(step, {f"evaluation_{name}": value for name, value in verdict.figures.items()})
            told = ", ".join(f"{name} {value:.3f}" for name, value in verdict.figures.items() if "_" not in name)
            print(f"evaluation after {step}/{self.settings.iterations}: {told}", flush=True)
        if verdict.stop:
            self._end(verdict.reason)

    def _end(self, reason: str) -> None:
        self.reason = reason
        self.progress.history["ended"].append({"step": self.progress.step})
        if self.first:
            print(f"stopped after iteration {self.progress.step}: {reason}", flush=True)

    def _lately(self) -> dict[str, float]:
        """Means of the training's figures since the last evaluation."""
        evaluations = self.progress.history["evaluations"]
        since = evaluations[-1]["step"] if evaluations else 0
        steps = [one for one in self.progress.history["steps"] if one["step"] > since]
        names = {name for one in steps for name in one if name != "step"}
        return {name: float(np.mean([one[name] for one in steps if name in one])) for name in names}

    def _check_missing(self, iterate: Iteration) -> None:
        over = self.settings.missing_over
        lately = [one["missing"] for one in self.progress.history["steps"][-over:]]
        if len(lately) == over and float(np.mean(lately)) > self.settings.most_missing:
            self._save()
            reasons: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(reasons, iterate.reasons)
            told = "; ".join(
                f"{count} x {reason}" for reason, count in sum(reasons, start=type(iterate.reasons)()).most_common(3)
            )
            raise EditLoopError(
                f"{np.mean(lately):.0%} of the rewards of the last {over} iterations are missing, more than "
                f"most_missing ({self.settings.most_missing:g}): {told}. "
                "The state is saved: mend the judge and call again."
            )

    def _leave(self, *, saved: bool = False) -> None:
        if not saved:
            self._save()
        if self.first:
            print(f"stopped at iteration {self.progress.step} and saved; the same call goes on", flush=True)
        raise SystemExit(STOPPED)

    def _save(self) -> None:
        checkpoint.save(
            self.engine, self.job.checkpoints, self.progress, identity=self.identity, keep=self.settings.checkpoints,
            beside=self._beside(),
        )  # fmt: skip

    def _beside(self) -> dict[str, Tensor]:
        old = {f"old.{place}": value for place, value in enumerate(self.old)}
        return old | {f"average.{place}": value for place, value in enumerate(self.averages)}

    def _put_beside(self, kept: dict[str, Tensor]) -> None:
        for name, values in (("old", self.old), ("average", self.averages)):
            for place, value in enumerate(values):
                value.copy_(kept[f"{name}.{place}"])

    def _tell(self, figures: dict[str, float], curves: Curves | None) -> None:
        if curves is None:
            return
        curves.add(self.progress.step, figures)
        if time.monotonic() - self._told > PACE_SECONDS:
            self._told = time.monotonic()
            pace = (time.monotonic() - self._began) / (self.progress.step - self._from)
            left = pace * (self.settings.iterations - self.progress.step)
            reward = f"{figures['reward']:.3f}" if "reward" in figures else "missing"
            print(
                f"iteration {self.progress.step}/{self.settings.iterations}: reward {reward}, "
                f"{figures['samples_per_second']:.1f} samples/s, {_minutes(left)} left",
                flush=True,
            )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
