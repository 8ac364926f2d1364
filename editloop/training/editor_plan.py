"""Estimate of the memory that an editor takes on each GPU: editing, supervised fine-tuning, online RL.

An iteration has phases, and the fullest one decides: encoding the tasks, sampling, decoding the edits, and the update.
Text encoders and codec are on the GPU only in the phase that uses them. Beside the phase there are always the
network's weights, what is trained, and the encoded tasks with the edits' latents. All figures are bytes. Imports no
torch.
"""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

from editloop.training.editor_activations import FULL, edit_tokens, update_memory, working_memory
from editloop.training.editor_architecture import EditorArchitecture
from editloop.training.editor_rl.algorithm_settings import NftSettings
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_sft.settings import SftSettings
from editloop.training.memory_plan import BUCKET_ELEMENTS, LIVE_WEIGHTS, USABLE_SHARE

COUNTS = tuple(2**power for power in range(9))
"""Numbers of GPUs that `fewest_gpus` tries."""


class EditorNeed(NamedTuple):
    """Bytes on each GPU."""

    weights: float
    """The network's weights, and those of text encoders and codec where these stay."""
    trained: float
    """The adapter's weights, or the whole network's masters: with gradients, AdamW's states and moving averages."""
    edits: float
    """Encoded tasks of an iteration, and latents and velocities of its edits."""
    encode: float
    """Text encoders and codec, with what they compute."""
    sample: float
    """A pass without gradients."""
    decode: float
    """The codec, with what it computes."""
    update: float
    """A pass forward and backward, or AdamW's step."""

    @property
    def total(self) -> float:
        """Bytes of the GPU's memory at the fullest moment."""
        return self.weights + self.trained + self.edits + max(self.encode, self.sample, self.decode, self.update)


class EditorTraining(NamedTuple):
    """What a plan reads from a training's settings."""

    adapter_rank: int | None
    """None: all weights are trained."""
    zero_stage: int
    micro_batch: int
    """Edits that go through the network at a time."""
    checkpointing: bool
    guidance: float | None
    """Guidance of the trained passes; None for the editor's own, which is above 1 where it takes several passes."""
    encoded: int
    """Tasks that are encoded at a time."""
    tasks: int
    """Tasks whose encodings are on the GPU."""
    samples: int
    """Edits that a rank samples in an iteration; 0 for supervised fine-tuning."""
    stored: int
    """Latents that are kept for each sampled edit."""
    averages: int
    """Copies of the trained weights beside them: the moving average, NFT's old policy."""
    resident: bool
    """Whether text encoders and codec stay on the GPU, in every phase."""
    references: int = 0
    """Reference images of a task, each of as many pixels as the edit."""


def rl_training(settings: RlSettings, gpus: int) -> EditorTraining:
    """Return what the plan of a training by online RL depends on.

    Args:
        settings: The training's settings.
        gpus: Number of GPUs, one rank each.
    """
    algorithm, tasks = settings.algorithm, ceil(settings.tasks / gpus)
    compared = 1 if settings.kl else 0
    if isinstance(algorithm, NftSettings):
        stored, averages = 1 + algorithm.levels * (2 + compared), 2  # noised, the old policy's velocity, the base's
    else:
        stored, averages = 1 + algorithm.window * (3 + compared), 1  # before and after a step, its mean, the base's
    most = ceil(tasks / settings.chunks) * settings.members
    return EditorTraining(
        settings.adapter.rank if settings.adapter else None,
        settings.zero_stage,
        min(settings.micro_batch, most),
        settings.gradient_checkpointing,
        settings.guidance,
        min(settings.micro_batch, tasks),
        tasks,
        tasks * settings.members,
        stored,
        averages,
        settings.encoders == "resident",
    )


def sft_training(settings: SftSettings, gpus: int) -> EditorTraining:
    """Return what the plan of a supervised fine-tuning depends on.

    Args:
        settings: The training's settings.
        gpus: Number of GPUs, one rank each.
    """
    training = settings.training
    micro, _ = training.accumulation(gpus, training.batch)
    return EditorTraining(
        training.adapter.rank if training.adapter else None,
        training.zero_stage,
        micro,
        training.gradient_checkpointing,
        settings.guidance,
        micro,
        micro,
        0,
        0,
        0,
        settings.encoders == "resident",
    )


def encoding_memory(shape: EditorArchitecture, tasks: int, pixels: int, size: int) -> float:
    """Return the bytes of encoding tasks, with text encoders and codec on the GPU for all of them.

    Args:
        shape: The editor's shape.
        tasks: Tasks that are encoded at a time.
        pixels: Pixels of a source.
        size: Bytes per number.
    """
    words = tasks * shape.text_tokens * max(encoder.elements for encoder in shape.text_encoders)
    return size * (frozen_weights(shape) + max(words, tasks * pixels * shape.codec.encode))


def frozen_weights(shape: EditorArchitecture) -> int:
    """Return the number of weights of text encoders and codec.

    Args:
        shape: The editor's shape.
    """
    return shape.codec.weights + sum(encoder.weights for encoder in shape.text_encoders)


def decoding_memory(shape: EditorArchitecture, edits: int, pixels: int, size: int) -> float:
    """Return the bytes of decoding edits.

    Args:
        shape: The editor's shape.
        edits: Edits that are decoded at a time.
        pixels: Pixels of an edit.
        size: Bytes per number.
    """
    return size * (shape.codec.weights + edits * pixels * shape.codec.decode)


def conditioning_memory(shape: EditorArchitecture, pixels: int, size: int, references: int = 0) -> float:
    """Return the bytes of an encoded task on the GPU: text, once more where guidance takes two passes, and sources.

    Args:
        shape: The editor's shape.
        pixels: Pixels of the source, and of each reference.
        size: Bytes per number.
        references: Reference images of the task.
    """
    sources = (1 + references) * shape.image_tokens(pixels) * shape.latent
    return size * (min(shape.passes, 2) * shape.text_tokens * shape.text_width + sources)


def plan_editing(
    shape: EditorArchitecture, pixels: int, edits: int, *, size: int = 2, references: int = 0
) -> EditorNeed:
    """Estimate what editing takes.

    Args:
        shape: The editor's shape.
        pixels: Pixels of an edit, height times width.
        edits: Edits at a time, each of a task of its own.
        size: Bytes per number: 2 for bf16, 4 for fp32.
        references: Reference images of a task, each of as many pixels as the edit.
    """
    return EditorNeed(
        size * shape.weights,
        0.0,
        edits
        * (conditioning_memory(shape, pixels, size, references) + FULL * shape.image_tokens(pixels) * shape.latent),
        encoding_memory(shape, edits, pixels, size),
        edits * working_memory(shape, edit_tokens(shape, pixels, references), size),
        decoding_memory(shape, edits, pixels, size),
        0.0,
    )


def plan_training(
    shape: EditorArchitecture,
    training: EditorTraining,
    gpus: int,
    pixels: int,
    *,
    size: int = 2,
    fused: bool = True,
) -> EditorNeed:
    """Estimate what each GPU holds at the fullest moment of an iteration or step.

    Args:
        shape: The editor's shape.
        training: What is trained, and how.
        gpus: Number of GPUs, one rank each.
        pixels: Pixels of an edit in training, height times width.
        size: Bytes per number in the passes: 2 for bf16, 4 for fp32.
        fused: Whether the optimiser works without intermediate results, as on a GPU.
    """
    stage, rank = training.zero_stage, training.adapter_rank
    adapter = rank is not None
    numbers = rank * shape.adapter_ends if rank is not None else shape.weights
    # an adapter is fp32, and so is a network that RL trains; fine-tuning has fp32 masters beside the passes' weights
    number = FULL if adapter or training.samples else size
    share = gpus if stage == 3 else 1
    base = size if adapter else number * (2 if training.samples else 1)  # RL compares with the weights it began with
    trained = (numbers * FULL / share if adapter else 0) + training.averages * FULL * numbers / share
    trained += number * numbers / (gpus if stage >= 2 else 1)
    trained += (12 if stage or number < FULL else 8) * numbers / (gpus if stage else 1)
    tokens = edit_tokens(shape, pixels, training.references)
    passes = shape.passes if training.guidance is None or training.guidance > 1 else 1
    activations = update_memory(
        shape, tokens, size, adapter=adapter, checkpointing=training.checkpointing, passes=passes
    )
    buffers = number * min(BUCKET_ELEMENTS, numbers) if stage else 0.0
    buffers += size * min(LIVE_WEIGHTS, shape.weights) if stage == 3 else 0.0
    casts = size * numbers if number != size else 0.0
    step = (FULL if fused else 2 * FULL) * numbers / (gpus if stage else 1)
    latent = FULL * shape.image_tokens(pixels) * shape.latent
    update = training.micro_batch * activations + buffers + casts
    resident = size * frozen_weights(shape) if training.resident else 0
    sampled = training.micro_batch if training.samples else 0
    return EditorNeed(
        base * shape.weights / share + resident,
        trained,
        training.tasks * conditioning_memory(shape, pixels, size, training.references)
        + training.samples * training.stored * latent,
        encoding_memory(shape, training.encoded, pixels, size) - resident,
        sampled * working_memory(shape, tokens, size) + (buffers if stage == 3 else 0.0),
        decoding_memory(shape, sampled, pixels, size) - (size * shape.codec.weights if resident else 0),
        max(update, step),
    )


def fewest_gpus(total: Callable[[int], float], capacity: float) -> int | None:
    """Return the smallest number of GPUs on which something fits, or None where none of COUNTS is enough.

    Args:
        total: Bytes that each GPU needs, by the number of GPUs.
        capacity: Bytes of memory of one GPU.
    """
    return next((count for count in COUNTS if total(count) <= USABLE_SHARE * capacity), None)


def suggest_editor_changes(
    shape: EditorArchitecture, training: EditorTraining, gpus: int, pixels: int, capacity: float
) -> list[str] | None:
    """Return the settings to change, one after the other, until a training fits.

    Args:
        shape: The editor's shape.
        training: The training that does not fit.
        gpus: Number of GPUs, one rank each.
        pixels: Pixels of an edit in training.
        capacity: Bytes of memory of one GPU.

    Returns:
        The changes as lines of YAML, in order; None if all of them together are not enough.
    """
    advice: dict[str, str] = {}
    halves = [training.micro_batch >> power for power in range(1, training.micro_batch.bit_length())]
    changes = [("gradient_checkpointing", "true", training._replace(checkpointing=True))]
    for count in halves:
        changes.append(("micro_batch", str(count), changes[-1][2]._replace(micro_batch=count)))
    if training.adapter_rank is None and not training.samples:
        changes.append(("zero_stage", "3", changes[-1][2]._replace(zero_stage=3)))
    for key, value, changed in changes:
        if changed == training:
            continue
        advice[key] = value
        if plan_training(shape, changed, gpus, pixels).total <= USABLE_SHARE * capacity:
            return [f"{name}: {figure}" for name, figure in advice.items()]
    return None


class EditorJob(NamedTuple):
    """Something to do with an editor, and what each GPU needs for it, by the number of GPUs."""

    name: str
    need: Callable[[int], EditorNeed]


def editor_jobs(shape: EditorArchitecture) -> list[EditorJob]:
    """Return what is planned for every editor: editing and trainings at their most frugal.

    That is one edit at a time, gradient checkpointing, an adapter of rank 32 or ZeRO-3, and groups of eight members.

    Args:
        shape: The editor's shape.
    """
    frugal = RlSettings(members=8, micro_batch=1, gradient_checkpointing=True)
    edit, small = 1024**2, 512**2

    def rl(gpus: int) -> EditorTraining:
        return rl_training(frugal.model_copy(update={"tasks": gpus}), gpus)

    def sft(gpus: int) -> EditorTraining:
        return rl(gpus)._replace(samples=0, stored=0, averages=0, guidance=1.0)

    return [
        EditorJob("edit, 1024 px", lambda gpus: plan_editing(shape, edit, 1)),
        EditorJob("LoRA SFT, 1024 px", lambda gpus: plan_training(shape, sft(gpus), gpus, edit)),
        EditorJob("LoRA RL, 512 px", lambda gpus: plan_training(shape, rl(gpus), gpus, small)),
        EditorJob("LoRA RL, 1024 px", lambda gpus: plan_training(shape, rl(gpus), gpus, edit)),
        EditorJob(
            "whole SFT, 512 px",
            lambda gpus: plan_training(shape, sft(gpus)._replace(adapter_rank=None, zero_stage=3), gpus, small),
        ),
    ]
