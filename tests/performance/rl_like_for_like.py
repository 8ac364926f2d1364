"""An iteration of online RL on a FLUX Kontext of 10 M parameters: Flow-Factory's trainers, and ours, like for like.

Both make the same edits with the same noise, train on all of them, with the same passes in batches of one size, and
update alike (`test_plain_flow_factory`). What differs is how a pass is computed: the adapter is merged into the weights
where no gradient is needed (fp32), takes fewer passes over the tokens where one is (`adapted_linear`), and the blocks
are compiled in the rows that say so. Choices that change the work itself have rows of their own in `rl_trainer`.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from editloop.models.judge_protocol import AxisScore, EditGroup, Score
from editloop.models.lora_settings import LoraSettings
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings, NftSettings
from editloop.training.editor_rl.settings import RlSettings
from tests.performance.bench import Benchmark
from tests.performance.rl_editor import kontext_folder
from tests.performance.rl_speed import TASKS, rows
from tests.performance.rl_trainer import NO_SLOWER, iterations, started, trainer

if TYPE_CHECKING:
    from editloop.training.editor_rl.iteration import Iteration
    from tests.performance.plain_flow_factory import PlainFlowFactory

EXAMPLE = RlSettings(
    algorithm=FlowGrpoSettings(window=1, window_kind="random", window_range=3, ratio_clip=(1e-4, 1e-4)),
    tasks=TASKS,
    members=2,
    micro_batch=TASKS,
    sampling_steps=10,
    adapter=LoraSettings(rank=64, alpha=128),
    targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    ),
    advantage_scale="group",
    kl=0.0,
    learning_rate=3e-4,
    precision="fp32",
)
"""Flow-Factory's example for FLUX Kontext: 1 of 10 steps is trained, without a KL term. Only the edits are fewer, and
their batches larger."""
WHOLE = EXAMPLE.model_copy(
    update={
        "algorithm": FlowGrpoSettings(window=7, window_kind="fixed", window_range=7, ratio_clip=(1e-4, 1e-4)),
        "sampling_steps": 8,
        "kl": 0.04,
    }
)
"""All steps but the last are trained, with a KL term, as Flow-GRPO's settings have it."""
NFT = EXAMPLE.model_copy(update={"algorithm": NftSettings(levels=5), "sampling_steps": 6, "kl": 1e-4})
"""As Edit-R1's settings for FLUX Kontext have it: 6 steps of sampling, 5 noise levels, with a KL term."""


class Brightness:
    """The brighter, the better. No two edits are alike to it, so that all are trained on both ways."""

    name = version = "brightness"
    axes = ("brightness",)

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        return [[self._score(float(edit.mean())) for edit in group.edits] for group in groups]

    @staticmethod
    def _score(value: float) -> Score:
        score = AxisScore(value, 0.0)
        return Score({"brightness": score}, score, value, value)


def plainly_iterating(settings: RlSettings) -> Callable[[], object]:
    """A function that makes the next iteration of Flow-Factory's trainer."""

    @cache
    def training() -> "PlainFlowFactory":
        import torch

        from editloop.models.editors.opening import open_editor
        from tests.performance.plain_flow_factory import PlainFlowFactory, PlainNft, PublishedKontext

        started()
        bf16 = settings.precision == "bf16"
        opened = open_editor(kontext_folder(), dtype=torch.bfloat16 if bf16 else torch.float32)
        editor = PublishedKontext(opened.pipeline, opened.settings)
        editor.bf16 = bf16
        kind = PlainNft if isinstance(settings.algorithm, NftSettings) else PlainFlowFactory
        return kind(editor, rows(), Brightness(), settings)

    numbers = count()
    return lambda: training().iteration(next(numbers))


def iterating(settings: RlSettings) -> Callable[[], object]:
    """The same of the trainer's."""

    @cache
    def training() -> "Iteration":
        with TemporaryDirectory() as folder:
            return iterations(
                trainer(settings, Path(folder), "brightness", Brightness(), edited_by=str(kontext_folder()))
            )

    numbers = count()
    return lambda: training().run(next(numbers), set(), measured=False)


def like_for_like(name: str, settings: RlSettings, target: float, **ours: bool | str) -> Callable[[], Benchmark]:
    """Sampling, scoring and updating on 16 edits: Flow-Factory's trainer, and ours, with `ours` beside the settings."""

    def make() -> Benchmark:
        return Benchmark(
            f"editor_rl: an iteration like for like, 10 M parameters, {name}",
            plainly_iterating(settings),
            iterating(settings.model_copy(update=ours)),
            target,
        )

    return make


def in_bf16(settings: RlSettings) -> RlSettings:
    return settings.model_copy(update={"precision": "bf16"})


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (
    like_for_like("Flow-GRPO, 1 of 10 steps trained, fp32", EXAMPLE, 1.1),
    like_for_like("Flow-GRPO, 1 of 10 steps trained, fp32, compiled here", EXAMPLE, 1.25, compile=True),
    like_for_like("Flow-GRPO, 1 of 10 steps trained, bf16", in_bf16(EXAMPLE), NO_SLOWER),
    like_for_like("Flow-GRPO, 1 of 10 steps trained, bf16, compiled here", in_bf16(EXAMPLE), 1.25, compile=True),
    like_for_like("Flow-GRPO, 7 of 8 steps trained, KL, bf16", in_bf16(WHOLE), NO_SLOWER),
    like_for_like("Flow-GRPO, 7 of 8 steps trained, KL, bf16, compiled here", in_bf16(WHOLE), 1.25, compile=True),
    like_for_like("DiffusionNFT, 5 levels, KL, bf16", in_bf16(NFT), NO_SLOWER),
    like_for_like("DiffusionNFT, 5 levels, KL, bf16, compiled here", in_bf16(NFT), 1.25, compile=True),
)
