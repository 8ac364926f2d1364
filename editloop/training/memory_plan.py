"""Estimate of the memory that a training takes on each GPU, before it starts. All figures are bytes. Imports no torch.

Weights, gradients and optimiser states are counted as in ZeRO (arXiv 1910.02054, section 3). Mixed precision takes 2 +
2 bytes per weight, and Adam 12 more for the fp32 master and two moments. They are spread over the ranks from stage 1
(states), 2 (gradients) or 3 (weights) on.

Activations are counted as in Korthikanti et al. (arXiv 2205.05198, section 4): what each operation of a layer keeps for
the backward pass. The count here is for Qwen's layers (RMS norms in fp32, grouped-query attention without stored
scores, gated MLP) and for the tokens of a tree, in which edits share their common tokens.
"""

from itertools import pairwise
from typing import NamedTuple

from editloop.training.architecture import Architecture, Language, Vision
from editloop.training.presets import Preset
from editloop.training.settings import TrainingSettings

BUCKET_ELEMENTS = 500_000_000
"""Elements that DeepSpeed gathers before it reduces gradients, at most the number of trainable ones."""
LIVE_WEIGHTS = 1_000_000_000
"""Largest number of weights that stage 3 keeps whole at a time (DeepSpeed's stage3_max_live_parameters)."""
USABLE_SHARE = 0.92
"""Share of a GPU's memory that tensors can fill. The rest goes to CUDA's context and to fragmentation."""
HEAD_INNER = (1024, 16, 2)
"""Widths of the layers of EditReward's heads after their input."""


class MemoryNeed(NamedTuple):
    """Bytes on each GPU."""

    weights: float
    gradients: float
    optimiser: float
    passing: float
    """The larger of two peaks. One comes at the end of a forward pass: activations, gradients on their way to other
    ranks, and gathered weights. The other is the optimiser's step, when the activations are gone."""
    host: float
    """Bytes of main memory per GPU, where something is offloaded to it."""

    @property
    def total(self) -> float:
        """Bytes of the GPU's memory: all fields except `host`."""
        return self.weights + self.gradients + self.optimiser + self.passing


class PassTokens(NamedTuple):
    """Numbers of tokens that one pass of a rank takes through the model."""

    language: int
    seen: int
    """Keys that the tree's nodes attend to: each node's own and its ancestors'. They are kept once per node."""
    patches: int
    answers: int
    """Tokens for which the distribution over the vocabulary is computed."""


def trained_weights(preset: Preset, training: TrainingSettings) -> tuple[int, int]:
    """Count the weights of a preset's model.

    Args:
        preset: The model and its architecture.
        training: Says whether an adapter is trained, and its rank. Used in place of the preset's own training settings.

    Returns:
        The number of all weights, and the number of those that are trained.
    """
    shape = preset.architecture
    heads = 0
    all_weights = shape.weights
    if preset.model == "edit-reward":
        ends = (shape.language.width, *HEAD_INNER)
        axes = len(preset.settings.get("axes", ("if", "vq")))
        heads = axes * sum(a * b + b for a, b in pairwise(ends))
    else:
        all_weights += shape.output_weights
    if training.adapter is None:
        embeddings = shape.language.vocabulary * shape.language.width
        return all_weights + heads, all_weights + heads - training.frozen_embeddings * embeddings
    adapter = shape.language.adapter_weights(training.adapter.rank)
    return all_weights + heads + adapter, adapter + heads


def pass_tokens(preset: Preset, units: int) -> PassTokens:
    """Count the tokens of one pass.

    A unit of EditReward is a group: a tree of sources, candidates and each candidate's rubrics, or with `paired` order
    a sequence per candidate. A unit of EditScore is a row of the sources, an edit, a question and an answer.

    Args:
        preset: The model and the size of its units.
        units: Units in the pass.
    """
    load, vision = preset.load, preset.architecture.vision
    patches = vision.patches(load.pixels)
    picture = patches // 4
    sources = 1 + load.references
    if preset.model == "edit-score":
        row = units * ((sources + 1) * picture + load.text_tokens + load.answer_tokens)
        return PassTokens(row, row, units * (sources + 1) * patches, units * load.answer_tokens)
    if preset.settings.get("order", "paired") == "paired":
        row = units * load.candidates * (picture + load.text_tokens)
        return PassTokens(row, row, units * load.candidates * patches, 0)
    axes = len(preset.settings.get("axes", ("if", "vq")))
    before_text = (sources + 1) * picture
    tree = sources * picture + load.candidates * (picture + axes * load.text_tokens)
    attended = sources * picture + load.candidates * (before_text + axes * (before_text + load.text_tokens))
    return PassTokens(units * tree, units * attended, units * (sources + load.candidates) * patches, 0)


def language_layer(shape: Language, load: PassTokens, size: int) -> float:
    """Return the bytes that one decoder layer keeps for the backward pass.

    Args:
        shape: The decoder's shape.
        load: The tokens of the pass.
        size: Bytes per number: 2 for bf16, 4 for fp32.
    """
    norm = (4 + 2 * size) if size == 2 else 3 * size  # the fp32 copy of the input, the normed input, the output
    norms = 2 * norm * shape.width
    if not shape.attention_bias:  # Qwen3 norms q and k
        norms += norm * (shape.attention + shape.key_values)
    attention = 3 * size * shape.attention  # q, the result, and the result with its heads joined
    each = norms + attention + 4 * size * shape.inner
    return load.language * each + load.seen * 2 * size * shape.key_values


def vision_layer(shape: Vision, size: int) -> float:
    """Return the bytes per patch that one layer of the vision tower keeps for the backward pass.

    Args:
        shape: The vision tower's shape.
        size: Bytes per number: 2 for bf16, 4 for fp32.
    """
    norm = ((4 + 2 * size) if size == 2 else 3 * size) if shape.gated else 2 * size
    return (2 * norm + 7 * size) * shape.width + (4 if shape.gated else 2) * size * shape.inner


def activations(preset: Preset, training: TrainingSettings, units: int, size: int) -> float:
    """Return the bytes that one pass keeps for the backward pass.

    Args:
        preset: The model and the size of its units.
        training: Says whether an adapter is trained and gradients are checkpointed.
        units: Units in the pass.
        size: Bytes per number: 2 for bf16, 4 for fp32.
    """
    shape: Architecture = preset.architecture
    text, vision = shape.language, shape.vision
    load = pass_tokens(preset, units)
    words = language_layer(text, load, size)
    vision_bytes = 0.0 if training.adapter else vision_layer(vision, size)  # a frozen tower keeps no activations
    if training.gradient_checkpointing:
        inputs = float(size * load.language * text.layers * text.width)
        inputs += size * (load.patches * vision.layers * vision.width) if vision_bytes else 0.0
        layers = inputs + max(words, load.patches * vision_bytes)  # one layer at a time is recomputed
    else:
        layers = text.layers * words + load.patches * vision.layers * vision_bytes
    output = load.answers * text.vocabulary * (2 * size + 8)
    return layers + output


def estimate_memory(
    preset: Preset, training: TrainingSettings, gpus: int, *, size: int = 2, fused: bool = True
) -> MemoryNeed:
    """Estimate what each GPU holds at the fullest moment of a step.

    Args:
        preset: The model and the size of its units.
        training: The training's settings.
        gpus: Number of GPUs, one rank each.
        size: Bytes per number in the passes through the model: 2 for bf16, 4 for fp32.
        fused: Whether the optimiser works without intermediate results, as on a GPU.
    """
    all_weights, trained = trained_weights(preset, training)
    stage = training.zero_stage
    micro, _ = training.accumulation(gpus, training.batch)
    weights = size * all_weights / (gpus if stage == 3 else 1)
    gradients = size * trained / (gpus if stage >= 2 else 1)
    states = (12.0 if stage or size == 2 else 8.0) * trained / (gpus if stage else 1)
    if stage == 0 and size == 2:
        gradients += 4 * trained  # gathered in fp32
    buffers = size * min(BUCKET_ELEMENTS, trained) if stage else 0.0
    step = (4.0 if fused else 8.0) * trained / (gpus if stage else 1)
    host = 0.0
    if stage == 3:
        buffers += size * min(LIVE_WEIGHTS, all_weights)
    if training.offload != "none":
        host, states, gradients, step = states + gradients + step, 0.0, 0.0, 0.0
    if training.offload == "parameters":
        host, weights = host + weights, 0.0
    passing = activations(preset, training, micro, size) + buffers
    return MemoryNeed(weights, gradients, states, max(passing, step), host)


def suggest_changes(preset: Preset, training: TrainingSettings, gpus: int, capacity: float) -> list[str] | None:
    """Return the settings to change, one after the other, until a training fits.

    Args:
        preset: The model and the size of its units.
        training: The settings that do not fit.
        gpus: Number of GPUs, one rank each.
        capacity: Bytes of memory of one GPU.

    Returns:
        The changes as lines of YAML, in order; None if all of them together are not enough.
    """
    changes: list[dict[str, int | str]] = [
        {"gradient_checkpointing": True},
        {"micro_batch": 1},
        {"zero_stage": 2},
        {"zero_stage": 3},
        {"zero_stage": 1, "offload": "optimizer"},
        {"zero_stage": 3, "offload": "parameters"},
    ]
    advice: dict[str, int | str] = {}
    before = estimate_memory(preset, training, gpus).total
    for change in changes:
        changed = {
            key: value for key, value in change.items() if key != "zero_stage" or int(value) > training.zero_stage
        }
        tried = training.model_copy(update=changed)
        after = estimate_memory(preset, tried, gpus).total
        if after >= before:
            continue
        training, before = tried, after
        advice = {key: value for key, value in advice.items() if key not in changed} | changed
        if after <= capacity * USABLE_SHARE:
            return [f"{key}: {str(value).lower()}" for key, value in advice.items()]
    return None
