"""Online RL of the editor against plain Flow-GRPO, by what is computed: an iteration of 64 edits, counted.

Rows tell apart what a ratio is made of. Like for like, algorithm and steps the same, the trainer asks the network as
often as published code does. What is saved comes from the choices that the other rows name, each on its own; the
window and the shared noise are published too (Flow-GRPO-Fast).
"""

import atexit
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from editloop.data.edits_file import EditRow, read_edits
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings, NftSettings
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.windows import trained_window
from tests.performance.bench import Benchmark
from tests.performance.rl_evaluations import Evaluations, calls_of

TASKS, MEMBERS, STEPS, ITERATIONS = 8, 8, 8, 3
WHOLE = RlSettings(
    algorithm=FlowGrpoSettings(window=7, window_kind="fixed", window_range=7, ratio_clip=(1e-4, 1e-4)),
    tasks=TASKS,
    members=MEMBERS,
    sampling_steps=STEPS,
    advantage_scale="batch",
    kl=0.04,
    learning_rate=3e-4,
    precision="fp32",
    micro_batch=TASKS,
)
"""Flow-GRPO as its published settings have it: all steps but the last are trained, with a KL term.

As many edits are in the network at a time as in a batch of the plain way.
"""
GRPO = FlowGrpoSettings(window=2, window_kind="random", window_range=4, ratio_clip=(1e-4, 1e-4))
WINDOW = WHOLE.model_copy(update={"algorithm": GRPO})
"""A window of two steps in the first half of the trajectory, as Flow-GRPO-Fast has it."""
SHARED = WINDOW.model_copy(update={"algorithm": GRPO.model_copy(update={"shared_noise": True})})
TOGETHER = WINDOW.model_copy(update={"micro_batch": TASKS * MEMBERS})
"""As many edits in the network at a time as there are in a part of the sampling."""
NFT = WHOLE.model_copy(update={"algorithm": NftSettings(levels=3)})
"""DiffusionNFT with three noise levels an edit."""
BEST_HALF = NFT.model_copy(update={"best_members": MEMBERS // 2})
WITHOUT_KL = BEST_HALF.model_copy(update={"kl": 0.0})


@cache
def rows() -> list[EditRow]:
    """As many drawn tasks as an iteration takes."""
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    write_edits(Path(folder.name), TASKS, 0)
    return list(read_edits(Path(folder.name)))


@cache
def plain_evaluations(settings: RlSettings) -> Evaluations:
    """Of an iteration the plain way."""
    from editloop.models.editors.opening import open_editor
    from editloop.training.editor_rl.scoring import OracleJudge
    from tests.performance.plain_flow_grpo import PlainFlowGrpo

    plain = PlainFlowGrpo(open_editor("tiny-editor"), rows(), OracleJudge(rows()), settings)
    with calls_of(plain.editor, "velocity") as calls:
        plain.iteration(0)
    return Evaluations.of(calls)


@cache
def our_evaluations(settings: RlSettings) -> Evaluations:
    """Of an iteration of the trainer's."""
    from editloop.training.editor_rl.scoring import OracleJudge
    from tests.performance.rl_trainer import iterations, trainer

    with TemporaryDirectory() as folder:
        iterate = iterations(trainer(settings, Path(folder), "oracle", OracleJudge(rows())))
        with calls_of(iterate.editor, "velocity") as calls:
            iterate.run(0, set(), measured=False)
    return Evaluations.of(calls)


def like_for_like(name: str, settings: RlSettings) -> Callable[[], Benchmark]:
    """The same algorithm, steps and edits: the same work, to the last evaluation."""

    def make() -> Benchmark:
        return Benchmark(
            f"editor_rl: latents through the network, like for like, {name}",
            lambda: sum(plain_evaluations(settings)),
            lambda: sum(our_evaluations(settings)),
            target=1.0,
            counted=True,
            same=lambda *_: plain_evaluations(settings) == our_evaluations(settings),
        )

    return make


def by_choice(name: str, before: RlSettings, after: RlSettings, target: float) -> Callable[[], Benchmark]:
    """What one choice saves, both ways in the trainer."""

    def make() -> Benchmark:
        return Benchmark(
            f"editor_rl: latents through the network, {name}",
            lambda: sum(our_evaluations(before)),
            lambda: sum(our_evaluations(after)),
            target=target,
            counted=True,
        )

    return make


@cache
def rolled_out(method: str) -> tuple[int, int]:
    """Rows that a method of the editor is asked about by the rollouts of a few iterations: the plain way, and ours."""
    from editloop.models.editors.opening import open_editor
    from editloop.models.editors.protocol import join_conditions
    from editloop.training.editor_rl.build_algorithm import build_algorithm
    from editloop.training.editor_rl.prompts import Prompts
    from editloop.training.editor_rl.rollout import SamplingCost, sample_rollout
    from editloop.training.editor_rl.scoring import OracleJudge
    from editloop.training.editor_rl.trained_weights import TrainedWeights
    from editloop.training.encoding_store import GIGABYTE, EncodingStore
    from tests.performance.plain_flow_grpo import PlainFlowGrpo

    editor, tasks = open_editor("tiny-editor"), list(range(TASKS))
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    prompts = Prompts(rows(), editor, EncodingStore(Path(folder.name), most_bytes=GIGABYTE), seed=0)
    plain = PlainFlowGrpo(editor, rows(), OracleJudge(rows()), SHARED)
    with calls_of(editor, method) as plainly:
        for iteration in range(ITERATIONS):
            for member in range(MEMBERS):
                plain.sample(iteration, [(task, member) for task in tasks])
    algorithm = build_algorithm(SHARED, editor, TrainedWeights(plain.trained))
    with calls_of(editor, method) as ours:
        for iteration in range(ITERATIONS):
            prompts.encode([tasks], TASKS)
            condition = join_conditions([known.condition for known in prompts.encoded_tasks(tasks)])
            plan = algorithm.sampling_plan(iteration)
            sample_rollout(SHARED, plan, editor, condition, tasks, iteration, SamplingCost())
    return sum(call.rows for call in plainly), sum(call.rows for call in ours)


def encodings() -> Benchmark:
    """Each member of each iteration, against each task once. Flow-Factory encodes a data set once, too."""
    return Benchmark(
        f"editor_rl: tasks encoded in {ITERATIONS} iterations",
        lambda: rolled_out("encode")[0],
        lambda: rolled_out("encode")[1],
        target=MEMBERS * ITERATIONS,
        counted=True,
        same=lambda _, ours: bool(ours == TASKS),
    )


def shared_steps() -> Benchmark:
    """Steps before the window: a member each with noise of its own, against once a group that starts from one noise."""
    before = sum(
        trained_window(GRPO.window_kind, iteration, SHARED.seed, size=GRPO.window, reach=GRPO.window_range).start
        for iteration in range(ITERATIONS)
    )
    after = STEPS * ITERATIONS - before
    return Benchmark(
        "editor_rl: latents through the network in rollouts, noise of each member's own against one noise",
        lambda: rolled_out("velocity")[0],
        lambda: rolled_out("velocity")[1],
        target=1.2,
        counted=True,
        same=lambda _, ours: bool(ours == TASKS * (before + MEMBERS * after)),
    )


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (
    like_for_like("7 of 8 steps trained", WHOLE),
    like_for_like("a window of 2", WINDOW),
    by_choice("7 of 8 steps trained against a window of 2", WHOLE, WINDOW, 1.8),
    by_choice("Flow-GRPO, 7 of 8 steps trained, against DiffusionNFT at 3 levels", WHOLE, NFT, 1.2),
    by_choice("DiffusionNFT on all members against half of them", NFT, BEST_HALF, 1.2),
    by_choice("DiffusionNFT with a KL term against none", BEST_HALF, WITHOUT_KL, 1.1),
    shared_steps,
    encodings,
)
