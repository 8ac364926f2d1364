"""Makes the tiny base editor that ships with EditLoop: FLUX Kontext's classes, under a million parameters.

    editloop weights editor            # half an hour on one core; writes components/editors/weights/tiny-editor

It is mediocre on purpose, as a real base editor is: it is trained on edits of which a part is not what was asked for,
so that what it makes of one instruction differs in kind from noise to noise. That is what a reward can choose between
and online RL has to work with. One that was trained on right edits alone fails alike from every noise (the best of 8
was right in 77 % where one was in 60 %), and an oracle's RL lifted it by 3 points.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from rich.progress import track
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from annotation.simulation.oracle import oracle
from annotation.simulation.scenes import SIDE, WORDS, Operation, SceneEdit, random_edit
from annotation.simulation.stand_ins import CHANGED, Picture, StandIn, blunt, idle, partial, timid
from components.editors.codec import PatchCodec
from components.editors.kontext import KontextEditor
from components.editors.protocol import Conditioning
from components.editors.sampling import edit
from components.editors.settings import EditorSettings, read_editor_preset

WIDTH = 96
TEXT_TOKENS = 12
BATCH = 32
PEAK_RATE = 2e-3
AVERAGE = 0.999
SEED = 17
STEPS = 8000
SHARES: dict[Operation, float] = {
    "recolour": 0.32, "add": 0.05, "remove": 0.25, "replace": 0.12, "move": 0.16, "background": 0.10,
}  # fmt: skip
"""How often each operation is drawn: the harder, the more often, so that none is mastered while another is unknown."""
FAULTY = 0.3
"""Share of the edits it is trained on that are not what was asked for."""
HALF_DONE: tuple[StandIn, ...] = (idle, timid, partial, blunt)
"""How every other faulty edit is made; the others do something else than, or more than, what was asked for."""


def settings() -> EditorSettings:
    """Kontext's, for pictures and instructions of the drawn world."""
    small = {"area": SIDE * SIDE, "sizes": ((SIDE, SIDE),), "text_tokens": TEXT_TOKENS, "guidance": 1.0, "steps": 8}
    return EditorSettings.model_validate(read_editor_preset("flux-kontext").model_dump() | small)


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of the world's words, one token a word, anything else [UNK]."""
    special = ["<pad>", "<s>", "</s>", "[UNK]"]
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate([*special, *WORDS])}, "[UNK]"))
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


def build(seed: int = SEED) -> KontextEditor:
    """An untrained tiny editor; its codec is fitted to drawn scenes."""
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
    pipeline = FluxKontextPipeline(
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


def faulty(asked: SceneEdit, rng: np.random.Generator) -> np.ndarray:
    """A result that a set of scraped edits could have for this one, uint8 (SIDE, SIDE, 3): another edit of the scene,
    one more than was asked for, or the right one done by halves."""
    source, target = asked.source.astype(np.float64), asked.target.astype(np.float64)
    kind = rng.random()
    made: Picture
    if kind < 0.5:
        made = HALF_DONE[int(rng.integers(len(HALF_DONE)))](source, target, rng)
    else:
        made = random_edit(rng, scene=asked.scene).target.astype(np.float64)
        if kind < 0.75:
            made = np.where(np.abs(target - source).max(axis=2, keepdims=True) > CHANGED, target, made)
    return made.round().clip(0, 255).astype(np.uint8)


def train(output: Path, *, steps: int = STEPS, seed: int = SEED) -> dict[str, float]:
    """Flow matching on drawn edits, some of them faulty, then save. Returns the share of right ones of even tasks.

    Loss: mean |v - (noise - picture)|^2 at x = (1 - sigma) picture + sigma noise, sigma uniform in 0..1.
    """
    editor = build(seed)
    parts = [editor.network, editor.pipeline.text_encoder, editor.pipeline.text_encoder_2]
    parameters = [parameter for part in parts for parameter in part.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=PEAK_RATE, weight_decay=0.01, betas=(0.9, 0.99))
    averaged = [
        torch.optim.swa_utils.AveragedModel(p, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE))
        for p in parts
    ]
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    words = editor.pipeline.tokenizer
    names, shares = list(SHARES), list(SHARES.values())
    losses: list[float] = []
    for step in track(range(steps), description="tiny editor"):
        optimiser.param_groups[0]["lr"] = PEAK_RATE * min(1, (step + 1) / 100) * min(1, 4 * (1 - step / steps))
        batch = [random_edit(rng, names[index]) for index in rng.choice(len(names), BATCH, p=shares)]
        tokens = words(
            [e.instruction for e in batch], padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt"
        ).input_ids
        source = editor.latents(np.stack([e.source for e in batch]))
        target = editor.latents(np.stack([faulty(e, rng) if rng.random() < FAULTY else e.target for e in batch]))
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
            print(f"step {step + 1}, loss {np.mean(losses[-500:]):.4f}", flush=True)
    for part, average in zip(parts, averaged, strict=True):
        part.load_state_dict(average.module.state_dict())
        part.eval()
    output.parent.mkdir(parents=True, exist_ok=True)
    editor.save(output)
    rng = np.random.default_rng(seed + 1)
    held_out = [random_edit(rng) for _ in range(600)]
    return {"steps": steps, "right": share_right(editor, held_out)}


def share_right(editor: KontextEditor, edits: list[SceneEdit]) -> float:
    """Share of tasks, 0..1, of which one edit (seeds 0, 1, ...) is right by the oracle; printed by operation too."""
    sources, targets = (np.stack([getattr(e, role) for e in edits]) for role in ("source", "target"))
    made = edit(editor, [e.instruction for e in edits], sources, seeds=list(range(len(edits))))
    right = oracle(sources, targets, np.stack(made)).right
    for operation in sorted({e.operation for e in edits}):
        print(f"{operation:12} {right[[e.operation == operation for e in edits]].mean():.2f}")
    return float(right.mean())


def _pixels(pictures: np.ndarray) -> torch.Tensor:
    assert pictures.shape[1:3] == (SIDE, SIDE)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
