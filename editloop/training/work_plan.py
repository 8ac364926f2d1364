"""Estimate of the work of a training: operations, traffic between GPUs, size of a checkpoint. Imports no torch.

A pass forward takes 2 operations per weight and token, the gradients of activations 2 more, those of trained weights
another 2 (Kaplan et al., arXiv 2001.08361, section 2.1); gradient checkpointing repeats the forward pass. Attention's
scores are left out: at a few thousand tokens they are a few per cent. Traffic is that of ZeRO (arXiv 1910.02054,
section 7).
"""

from typing import NamedTuple

from editloop.training.editor_activations import edit_tokens
from editloop.training.editor_architecture import EditorArchitecture
from editloop.training.editor_rl.algorithm_settings import NftSettings
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.memory_plan import pass_tokens, trained_weights
from editloop.training.presets import Preset
from editloop.training.settings import TrainingSettings

CHECKPOINT_BYTES = 14
"""Bytes of a trained weight in a checkpoint: bf16, the fp32 master and two moments."""
HALF = 2
"""Bytes of a bf16 number."""


class TrainingWork(NamedTuple):
    """Work of a reward model's training."""

    steps: int
    operations: float
    """Floating-point operations of the whole training."""
    traffic: float
    """Bytes that each GPU sends in a step."""
    checkpoint: float
    """Bytes of a checkpoint, all ranks together."""


class RlWork(NamedTuple):
    """Work of an iteration of online RL."""

    edits: int
    sampling: float
    """Floating-point operations of making the edits."""
    updates: float
    """Floating-point operations of learning from them."""


def training_work(preset: Preset, training: TrainingSettings, gpus: int, units: int) -> TrainingWork:
    """Estimate the work of a reward model's training.

    Args:
        preset: The model and the size of its units.
        training: The training's settings.
        gpus: Number of GPUs, one rank each.
        units: Units in an epoch: groups of EditReward, rows of EditScore.
    """
    all_weights, trained = trained_weights(preset, training)
    micro, passes = training.accumulation(gpus, training.batch)
    steps = training.steps or max(1, round(units * (training.epochs or 1) / (gpus * micro * passes)))
    load = pass_tokens(preset, 1)
    vision = preset.architecture.vision.weights(preset.architecture.language.width)
    repeats = 1 if training.gradient_checkpointing else 0
    language_passes = 2 + repeats if training.adapter else 3 + repeats
    vision_passes = 1 if training.adapter else 3 + repeats
    each = 2.0 * load.language * (all_weights - vision) * language_passes + 2.0 * load.patches * vision * vision_passes
    gathered = 2 * HALF * all_weights * passes if training.zero_stage == 3 else HALF * trained
    share = (gpus - 1) / gpus
    return TrainingWork(
        steps,
        each * steps * gpus * micro * passes,
        share * (gathered + HALF * trained),
        float(CHECKPOINT_BYTES * trained),
    )


def rl_work(settings: RlSettings, shape: EditorArchitecture, pixels: int, references: int = 0) -> RlWork:
    """Estimate the work of an iteration of online RL, without the reward model's.

    In a trained pass the network runs forward and backward (activations alone, where an adapter is trained), and
    forward with the weights that it is compared with: the base, and the old policy of NFT.

    Args:
        settings: The training's settings.
        shape: The editor's shape.
        pixels: Pixels of an edit, height times width.
        references: Reference images of a task, each of as many pixels as the edit.
    """
    edits = settings.tasks * settings.members
    forward = 2.0 * shape.weights * edit_tokens(shape, pixels, references).every
    guided = shape.passes if settings.guidance is None or settings.guidance > 1 else 1
    algorithm = settings.algorithm
    compared = (1 if isinstance(algorithm, NftSettings) else 0) + (1 if settings.kl else 0)
    backward = 1 if settings.adapter else 2
    learning_edits = settings.tasks * (settings.best_members or settings.members)
    return RlWork(
        edits,
        edits * settings.sampling_steps * guided * forward,
        learning_edits * algorithm.levels_per_edit * (1 + backward + compared) * guided * forward,
    )
