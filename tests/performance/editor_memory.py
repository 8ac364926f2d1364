"""The plan of an editor's memory against an iteration of online RL that is really run.

    python -m tests.performance.editor_memory            # about 300 M weights, random; prints planned and measured

The network is FLUX's class with bf16 weights, an fp32 adapter and DeepSpeed's optimiser, in the trainer that ships;
text encoders are tiny, the codec is of the real class at a quarter of its width. What is measured is the most memory
that tensors hold at a time.
"""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel

from editloop.models.editors.kontext import KontextEditor
from editloop.models.lora_settings import LoraSettings
from editloop.training.editor_architecture import Codec, EditorArchitecture, TextEncoder, read_editor_architecture
from editloop.training.editor_opening import prepare_to_train
from editloop.training.editor_plan import plan_training, rl_training
from editloop.training.editor_rl.algorithm_settings import NftSettings
from editloop.training.editor_rl.settings import RlJob, RlSettings
from tests.performance.bench import Benchmark
from tests.tensor_memory import tensor_peak
from tests.tiny_editors import build_tiny_editor

SIDE, TEXT_TOKENS = 128, 8
MEGABYTE = 2**20
NEAR = 0.9
"""Least ratio of the smaller to the larger of planned and measured."""


def settings_of(*, checkpointing: bool, edits: int) -> RlSettings:
    """An iteration of this many edits, which go through the network together."""
    return RlSettings(
        tasks=2,
        members=edits // 2,
        micro_batch=edits,
        chunks=1,
        sampling_steps=2,
        algorithm=NftSettings(levels=1),
        adapter=LoraSettings(rank=16, alpha=16),
        gradient_checkpointing=checkpointing,
        precision="bf16",
        kl=0.1,
    )


def build_editor(width: int, double: int, single: int) -> KontextEditor:
    """FLUX Kontext's classes with random weights, in bf16 from the start."""
    editor = build_tiny_editor("kontext")
    assert isinstance(editor, KontextEditor)
    with torch.device("meta"):
        network: Any = FluxTransformer2DModel(  # to mypy diffusers' models are no modules
            in_channels=64,
            num_layers=double,
            num_single_layers=single,
            attention_head_dim=64,
            num_attention_heads=width // 64,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=True,
            axes_dims_rope=(16, 24, 24),
        )
    network.to(torch.bfloat16).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.02)
    codec = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=2,
        latent_channels=16,
        scaling_factor=0.36,
        shift_factor=0.11,
    )
    pipeline = type(editor.pipeline)(**editor.pipeline.components | {"transformer": network.eval(), "vae": codec})
    pipeline.set_progress_bar_config(disable=True)
    for name, part in pipeline.components.items():
        if name != "transformer" and isinstance(part, torch.nn.Module):
            part.to(torch.bfloat16).eval()
    return KontextEditor(pipeline, editor.settings.model_copy(update={"area": SIDE**2, "text_tokens": TEXT_TOKENS}))


def shape_of(editor: KontextEditor) -> EditorArchitecture:
    """The editor's shape, as a file of `architectures/` states it for a published one."""
    network, pipeline = editor.network, editor.pipeline
    layers = [network.get_submodule(name) for name in editor.adapter_layers()]
    ends = sum(layer.in_features + layer.out_features for layer in layers if isinstance(layer, torch.nn.Linear))
    width = network.config.num_attention_heads * network.config.attention_head_dim
    real = read_editor_architecture("flux-kontext")
    counts = (network.config.num_layers, network.config.num_single_layers)
    blocks = [
        blocks.model_copy(update={"count": count, "inner": 4 * width})
        for blocks, count in zip(real.blocks, counts, strict=True)
    ]
    return EditorArchitecture(
        preset=real.preset,
        weights=network.num_parameters(),
        adapter_ends=ends,
        width=width,
        heads=network.config.num_attention_heads,
        latent=64,
        text_width=32,
        text_tokens=TEXT_TOKENS,
        passes=1,
        blocks=tuple(blocks),
        codec=Codec(weights=pipeline.vae.num_parameters(), encode=192, decode=304),
        text_encoders=tuple(
            TextEncoder(weights=encoder.num_parameters(), elements=1000)
            for encoder in (pipeline.text_encoder, pipeline.text_encoder_2)
        ),
    )


def compare(build: Callable[[], KontextEditor], settings: RlSettings) -> tuple[float, float]:
    """Megabytes of the plan, and those that two iterations of the training hold at most."""
    from editloop.training.editor_rl.loop import Training
    from editloop.training.editor_rl.scoring import RewardJudges
    from editloop.training.editor_rl.train import open_prompts
    from tests.performance.rl_speed import rows
    from tests.performance.rl_trainer import iterations, started
    from tests.pixel_judge import PixelJudge

    started()
    shapes: list[EditorArchitecture] = []
    with TemporaryDirectory() as folder:
        job = RlJob(
            edits=Path(folder),
            output=Path(folder),
            editor="",
            rewards={"pixels": 1.0},
            settings=settings,
            checkpoints=Path(folder),
        )

        def train() -> None:
            editor = build()
            shapes.append(shape_of(editor))
            trained = prepare_to_train(editor, settings, settings, bf16=True)
            prompts = open_prompts(job, rows(), editor)
            training = Training(job, editor, trained, prompts, RewardJudges({"pixels": PixelJudge()}, patience=0))
            for number in range(2):
                iterations(training).run(number, set(), measured=False)

        measured = tensor_peak(train)
    need = plan_training(shapes[0], rl_training(settings, 1), 1, SIDE**2, fused=False)
    return need.total / MEGABYTE, measured / MEGABYTE


def against_measured(*, checkpointing: bool) -> Callable[[], Benchmark]:
    """Planned and measured megabytes, as a ratio of the smaller to the larger."""

    @cache
    def both() -> tuple[float, float]:
        settings = settings_of(checkpointing=checkpointing, edits=8)
        planned, measured = compare(lambda: build_editor(1024, 4, 9), settings)
        print(f"editor of 300 M: planned {planned:.0f} MB, measured {measured:.0f}", file=sys.stderr)
        return planned, measured

    def make() -> Benchmark:
        way = "with" if checkpointing else "without"
        return Benchmark(
            f"editor memory: RL of 300 M weights {way} checkpointing, planned MB and measured, less over more",
            lambda: min(both()),
            lambda: max(both()),
            target=NEAR,
            counted=True,
        )

    return make


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (
    against_measured(checkpointing=True),
    against_measured(checkpointing=False),
)

if __name__ == "__main__":
    for benchmark in (make() for make in BENCHMARKS):
        print(f"{benchmark.name}: {benchmark.plain():.0f}, {benchmark.ours():.0f}")
