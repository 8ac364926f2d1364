"""Online RL of an editor: an iteration of Flow-GRPO by the shipped code, at the largest size that fits."""

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from editloop.data.edits_file import read_edits
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.protocol import join_conditions
from editloop.models.judge_protocol import AxisScore, EditGroup, Score
from editloop.models.lora_settings import LoraSettings
from editloop.studies.world.scenes import write_edits
from editloop.training.distributed import StopRequest
from editloop.training.editor_architecture import read_editor_architecture
from editloop.training.editor_opening import prepare_to_train
from editloop.training.editor_plan import plan_training, rl_training
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings
from editloop.training.editor_rl.iteration import Iteration
from editloop.training.editor_rl.loop import Training
from editloop.training.editor_rl.prompts import Prompts
from editloop.training.editor_rl.scoring import RewardJudges
from editloop.training.editor_rl.settings import RlJob, RlSettings
from editloop.training.editor_rl.train import open_prompts
from tests.gpu.conditions import Conditions, Figures, checked
from tests.gpu.editors import real_editor
from tests.gpu.machine import forget_peak, peak_gib, utilisation
from tests.gpu.trainings import one_rank
from tests.tiny_editors import build_tiny_editor

TINY = {
    "qwen-image-edit-plus": "qwen-edit-plus",
    "flux-kontext": "kontext",
    "omnigen2": "omnigen2",
    "flux2-klein": "klein-distilled",
}
"""Kinds of tests.tiny_editors, by preset."""
MEMBERS, STEPS = 8, 6
UPDATE_PASSES = 4
"""Of an edit, in forward passes: the frozen editor's, the trained one's, that once more as its blocks are checkpointed,
and the way back through frozen weights."""
GIB = 2**30
SHAPES = {"flux2-klein": "flux2-klein-4b"}
"""Names of the plan's shapes that are not the preset's."""
RATIO = {"ratio_deviation": 1e-4}
"""Most that the probability ratio may differ from 1 at the first update, half of the clip range: the update must see
what was rolled out."""


class Brightness:
    """A judge that takes no time: the mean of a picture's values."""

    name, version, axes = "brightness", "1", ("brightness",)

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """One score an edit, 0..255: on 0..1 two edits by random weights may be too alike to count as different."""
        return [[self.score(float(edit.mean())) for edit in group.edits] for group in groups]

    def score(self, value: float) -> Score:
        """The value as a score."""
        belief = AxisScore(value, 0.0)
        return Score({"brightness": belief}, belief, value, value)


def qwen_image_edit(conditions: Conditions) -> Figures:
    """Qwen-Image-Edit-Plus, 20 billion weights, pictures of 256 x 256."""
    return _iteration(conditions, "qwen-image-edit-plus", 256)


def kontext(conditions: Conditions) -> Figures:
    """FLUX.1 Kontext, 12 billion weights, pictures of 512 x 512, eight edits of a task."""
    return _iteration(conditions, "flux-kontext", 512)


def omnigen2(conditions: Conditions) -> Figures:
    """OmniGen2, 4 billion weights, pictures of 512 x 512."""
    return _iteration(conditions, "omnigen2", 512)


def klein(conditions: Conditions) -> Figures:
    """FLUX.2 Klein, 4 billion weights, pictures of 768 x 768."""
    return _iteration(conditions, "flux2-klein", 768)


def settings(tiny: bool) -> RlSettings:
    """One stochastic step, one update: what is rolled out is what is trained on, so that the ratio is 1 exactly."""
    size = (
        {"tasks": 1, "members": 2, "sampling_steps": 2}
        if tiny
        else {"tasks": 1, "members": MEMBERS, "sampling_steps": STEPS}
    )
    return RlSettings(
        algorithm=FlowGrpoSettings(window=1, window_kind="fixed", window_range=1),
        iterations=2,
        micro_batch=1,
        chunks=1,
        guidance=1.0,
        precision="bf16",
        gradient_checkpointing=True,
        adapter=LoraSettings(rank=16, alpha=32),
        learning_rate=1e-4,
        evaluate_every=2,
        checkpoint_every=2,
        **size,
    )


def _iteration(conditions: Conditions, preset: str, side: int) -> Figures:
    one_rank()
    editor = _editor(conditions, preset, side)
    chosen = settings(conditions.tiny)
    iterate, prompts = _started(conditions, editor, chosen)
    flops = _pass_flops(editor, prompts)
    forget_peak()
    iterate.run(0, set(), measured=True)  # kernels are chosen
    figures = iterate.run(1, set(), measured=True).figures
    passes = figures["network_calls"] + UPDATE_PASSES * chosen.tasks * chosen.members
    row: Figures = {
        "weights_billions": sum(weight.numel() for weight in editor.network.parameters() if not weight.requires_grad)
        / 1e9,
        "edits_per_second": figures["samples_per_second"],
        "sampling_seconds": figures["sampling"],
        "updating_seconds": figures["seconds"] - figures["sampling"],
        "mfu": utilisation(flops * passes, figures["seconds"]),
        "ratio_deviation": figures["ratio_deviation"],
        "peak_gib": peak_gib(),
        "planned_gib": plan_training(
            read_editor_architecture(SHAPES.get(preset, preset)), rl_training(chosen, 1), 1, side * side
        ).total
        / GIB,
    }
    return checked(row, RATIO)


def _editor(conditions: Conditions, preset: str, side: int) -> PipelineEditor:
    if conditions.tiny:
        editor = build_tiny_editor(TINY[preset])
        editor.pipeline.to(torch.bfloat16)
        return editor
    return real_editor(preset, conditions.device, side)


def _started(conditions: Conditions, editor: PipelineEditor, chosen: RlSettings) -> tuple[Iteration, Prompts]:
    """A training of the editor on drawn tasks, nothing done yet."""
    edits = conditions.folder / "edits"
    write_edits(edits, chosen.tasks, 0)
    job = RlJob(
        edits=edits,
        output=conditions.folder / "output",
        editor="random",
        rewards={"brightness": 1.0},
        settings=chosen,
        checkpoints=conditions.folder / "checkpoints",
    )
    trained = prepare_to_train(editor, chosen, chosen, bf16=True)
    prompts = open_prompts(job, list(read_edits(edits)), editor)
    training = Training(job, editor, trained, prompts, RewardJudges({"brightness": Brightness()}, patience=0))
    iterate = Iteration(
        chosen,
        training.editor,
        prompts,
        training.reward_judges,
        job.rewards,
        training.training_run.engine,
        training.algorithm,
        StopRequest(),
    )
    return iterate, prompts


@torch.no_grad()
def _pass_flops(editor: PipelineEditor, prompts: Prompts) -> float:
    """Operations of one edit's pass through the network, counted by torch; needs no figures of the architecture."""
    prompts.encode([[0]], 1)
    condition = join_conditions([task.condition for task in prompts.encoded_tasks([0])]).to(editor.device)
    x = editor.noise(1, condition.size, torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        editor.velocity(x, torch.ones(1, device=x.device), condition, 1.0)
    return float(counter.get_total_flops())
