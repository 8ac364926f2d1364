"""Trains the tiny base editor that ships with EditLoop: FLUX Kontext's classes, under a million parameters.

    editloop weights editor            # half an hour on one core; writes editloop/models/editors/weights/tiny-editor

It is mediocre on purpose, as a real base editor is. It learns right edits first, and then a mixture in which a part of
the edits is faulty. So its edits of one instruction differ in kind from noise to noise, which gives a reward something
to choose between and online RL something to reinforce: a single edit is right for 28 % of the tasks, the best of 8 for
59 %. An editor that learnt right edits alone fails in the same way from every noise (60 % and 77 %), and RL with the
oracle improved it by 3 points only. An editor that learns the mixture from the start learns little in this time (8 %
after 8,000 steps).
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from editloop.evaluation.oracle import oracle
from editloop.models.editors.codec import PatchCodec
from editloop.models.editors.kontext import KontextEditor
from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.sampling import edit
from editloop.models.editors.settings import EditorSettings, read_editor_preset
from editloop.progress import track
from editloop.studies.world.scenes import SIDE, WORDS, Operation, SceneEdit, random_edit
from editloop.studies.world.stand_ins import CHANGED, Picture, StandIn, blunt, idle, partial, timid

log = logging.getLogger(__name__)

WIDTH = 96
TEXT_TOKENS = 12
BATCH = 32
SEED = 17
SHARES: dict[Operation, float] = {
    "recolour": 0.32,
    "add": 0.05,
    "remove": 0.25,
    "replace": 0.12,
    "move": 0.16,
    "background": 0.10,
}
"""Share of each operation in the training data. Harder ones are drawn more often, so that none is mastered while
another is still unknown."""
FAULTY = 0.45
"""Share of faulty edits in the second phase, 0..1."""
HALF_DONE: tuple[StandIn, ...] = (idle, partial, blunt, timid)
"""Stand-ins that make half of the faulty edits. The other half do something else, or more, than was asked for."""


class TrainingPhase(NamedTuple):
    """A phase of the training."""

    steps: int
    faulty: float
    """Share of faulty edits, 0..1."""
    peak_rate: float
    """Highest learning rate."""
    warm_up: int
    """Steps until it is reached."""
    ema_decay: float
    """Decay of the moving average of the weights. The average becomes the result."""


RIGHT = TrainingPhase(8000, 0.0, 2e-3, 100, 0.999)
SCRAPED = TrainingPhase(1500, FAULTY, 1e-3, 50, 0.995)


def settings() -> EditorSettings:
    """Return FLUX Kontext's settings, changed to the size of the drawn scenes and their instructions."""
    small = {"area": SIDE * SIDE, "sizes": ((SIDE, SIDE),), "text_tokens": TEXT_TOKENS, "guidance": 1.0, "steps": 8}
    return EditorSettings.model_validate(read_editor_preset("flux-kontext").model_dump() | small)


def tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of the drawn world's words: a token for each, and [UNK] for any other word."""
    special = ["<pad>", "<s>", "</s>", "[UNK]"]
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate([*special, *WORDS])}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="[UNK]",
        model_max_length=TEXT_TOKENS,
    )


def build_tiny_editor(seed: int = SEED) -> KontextEditor:
    """Build an untrained tiny editor. Its codec is fitted to drawn scenes.

    Args:
        seed: Seed of the weights and of the scenes.
    """
    torch.manual_seed(seed)
    words = tokenizer()
    codec = PatchCodec()
    rng = np.random.default_rng(seed)
    codec.fit(_pixels(np.stack([random_edit(rng).target for _ in range(1000)])))
    text = T5EncoderModel(
        T5Config(
            vocab_size=len(words),
            d_model=WIDTH,
            d_kv=32,
            d_ff=2 * WIDTH,
            num_layers=2,
            num_heads=3,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
        )
    )
    pooled = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=TEXT_TOKENS,
            projection_dim=32,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    transformer = FluxTransformer2DModel(
        in_channels=4 * codec.config.latent_channels,
        num_layers=1,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=32,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )
    pipeline: Any = FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=codec,
        text_encoder=pooled,
        tokenizer=words,
        text_encoder_2=text,
        tokenizer_2=words,
        transformer=transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return KontextEditor(pipeline, settings())


def faulty(scene_edit: SceneEdit, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a faulty result, as a scraped dataset may hold.

    It is another edit of the scene, the right edit together with another one, or a stand-in's.

    Args:
        scene_edit: The task.
        rng: Source of random numbers.

    Returns:
        uint8 (SIDE, SIDE, 3).
    """
    source, target = scene_edit.source.astype(np.float64), scene_edit.target.astype(np.float64)
    kind = rng.random()
    picture: Picture
    if kind < 0.5:
        picture = random_edit(rng, scene=scene_edit.scene).target.astype(np.float64)
        if kind >= 0.25:
            picture = np.where(np.abs(target - source).max(axis=2, keepdims=True) > CHANGED, target, picture)
    else:
        picture = HALF_DONE[int((kind - 0.5) * 2 * len(HALF_DONE))](source, target, rng)
    return picture.round().clip(0, 255).astype(np.uint8)


def pretrain_tiny_editor(output: Path, *, steps: int = RIGHT.steps, seed: int = SEED) -> dict[str, float]:
    """Train the tiny editor, first on right edits, then on a mixture with faulty ones, and save it.

    Args:
        output: The model folder to write.
        steps: Steps of the first phase. Those of the second are scaled in proportion.
        seed: Seed of weights and data.

    Returns:
        steps, and right: the share of right edits, 0..1, on 600 tasks with operations drawn uniformly.
    """
    editor = build_tiny_editor(seed)
    learn(editor, RIGHT._replace(steps=steps), seed)
    learn(editor, SCRAPED._replace(steps=round(steps * SCRAPED.steps / RIGHT.steps)), seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    editor.save(output)
    rng = np.random.default_rng(seed + 1)
    held_out = [random_edit(rng) for _ in range(600)]
    return {"steps": steps, "right": share_right(editor, held_out)}


def learn(editor: KontextEditor, phase: TrainingPhase, seed: int) -> None:
    """Train network and text encoders by flow matching on drawn edits, and replace them by their moving averages.

    The loss is the mean of |v - (noise - edit)|^2 at x = (1 - sigma) edit + sigma noise, with sigma uniform in 0..1.

    Args:
        editor: The editor, changed in place.
        phase: The phase of the training.
        seed: Seed of the data and of the noise.
    """
    parts = [editor.network, editor.pipeline.text_encoder, editor.pipeline.text_encoder_2]
    parameters = [parameter.requires_grad_(True) for part in parts for parameter in part.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=phase.peak_rate, weight_decay=0.01, betas=(0.9, 0.99))
    ema = get_ema_multi_avg_fn(phase.ema_decay)
    averaged = [AveragedModel(part, multi_avg_fn=ema) for part in parts]
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    words = editor.pipeline.tokenizer
    names, shares = list(SHARES), list(SHARES.values())
    losses: list[float] = []
    for step in track(range(phase.steps), description=f"tiny editor, {phase.faulty:.0%} of its edits faulty"):
        schedule = min(1, (step + 1) / phase.warm_up) * min(1, 4 * (1 - step / phase.steps))
        optimiser.param_groups[0]["lr"] = phase.peak_rate * schedule
        batch = [random_edit(rng, names[index]) for index in rng.choice(len(names), BATCH, p=shares)]
        results = [faulty(e, rng) if phase.faulty and rng.random() < phase.faulty else e.target for e in batch]
        tokens = words(
            [e.instruction for e in batch], padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt"
        ).input_ids
        source = editor.latents(np.stack([e.source for e in batch]))
        target = editor.latents(np.stack(results))
        prompt = editor.pipeline.text_encoder_2(tokens)[0]
        pooled = editor.pipeline.text_encoder(tokens).pooler_output
        noise = torch.randn(target.shape, generator=generator)
        sigma = torch.rand(BATCH, generator=generator)
        level = sigma[:, None, None]
        condition = Conditioning((SIDE, SIDE), {"prompt": prompt, "pooled": pooled, "source": source})
        velocity = editor.velocity((1 - level) * target + level * noise, sigma, condition)
        loss = (velocity - (noise - target)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        for part, average in zip(parts, averaged, strict=True):
            average.update_parameters(part)
        losses.append(loss.item())
        if (step + 1) % 500 == 0:
            log.info("step %d, loss %.4f", step + 1, np.mean(losses[-500:]))
    for part, average in zip(parts, averaged, strict=True):
        part.load_state_dict(average.module.state_dict())
        part.eval()


def share_right(editor: KontextEditor, edits: list[SceneEdit]) -> float:
    """Return the share of tasks, 0..1, whose edit is right by the oracle, and log it by operation.

    Args:
        editor: The editor. It makes one edit for each task, from seeds 0, 1, ...
        edits: The tasks.
    """
    sources, targets = (np.stack([getattr(e, role) for e in edits]) for role in ("source", "target"))
    edited = edit(editor, [e.instruction for e in edits], sources, seeds=list(range(len(edits))))
    right = oracle(sources, targets, np.stack(edited)).right
    for operation in sorted({e.operation for e in edits}):
        log.info("%-12s %.2f", operation, right[[e.operation == operation for e in edits]].mean())
    return float(right.mean())


def _pixels(pictures: NDArray[np.uint8]) -> torch.Tensor:
    assert pictures.shape[1:3] == (SIDE, SIDE)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
