"""The plan of an editor's memory: shapes against the real classes, counts against what autograd keeps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLQwenImage
from peft import LoraConfig
from torch import Tensor, nn

from editloop.models.editors.adapted_linear import ADAPTER, AdaptedLinear
from editloop.models.editors.settings import PRESETS, read_editor_preset
from editloop.settings_file import preset_names
from editloop.training.editor_activations import (
    EditTokens,
    edit_tokens,
    kept_by_block,
    update_memory,
    working_memory,
)
from editloop.training.editor_architecture import (
    EditorArchitecture,
    editor_architecture_names,
    read_editor_architecture,
)
from editloop.training.editor_plan import fewest_gpus, plan_editing, plan_training, rl_training
from editloop.training.editor_rl.settings import RlSettings
from tests.published_editors import build_published
from tests.tensor_memory import kept_by_autograd, tensor_peak

RANK = 4
SIDE = 512
FAMILIES = ("flux-kontext", "flux2-klein-4b", "flux2-dev", "qwen-image-edit-plus", "qwen-image-edit-2511", "omnigen2")


def weights_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def adapted_layers(network: nn.Module, preset: str) -> dict[str, nn.Linear]:
    endings = read_editor_preset(preset).targets
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and any(name == end or name.endswith(f".{end}") for end in endings)
    }


@pytest.mark.parametrize("name", editor_architecture_names())
def test_an_editors_shape_is_that_of_the_published_classes(name: str) -> None:
    shape, editor = read_editor_architecture(name), build_published(name.replace("-base", ""))
    config, preset = editor.network.config, read_editor_preset(shape.preset)
    assert weights_of(editor.network) == shape.weights
    assert weights_of(editor.codec) == shape.codec.weights
    assert [weights_of(encoder) for encoder in editor.text_encoders] == [each.weights for each in shape.text_encoders]
    layers = adapted_layers(editor.network, shape.preset).values()
    assert sum(layer.in_features + layer.out_features for layer in layers) == shape.adapter_ends
    omnigen, step1x = name == "omnigen2", name.startswith("step1x")
    width = config.hidden_size if omnigen else config.num_attention_heads * config.attention_head_dim
    assert (width, config.num_attention_heads) == (shape.width, shape.heads)
    text = config.text_feat_dim if omnigen else config.joint_attention_dim
    assert (config.connector_in_channels if step1x else text) == shape.text_width
    assert config.in_channels * (config.patch_size**2 if omnigen else 1) == shape.latent
    runs = ["layers", "noise_refiner"] if omnigen else ["transformer_blocks", "single_transformer_blocks"]
    counts = [len(getattr(editor.network, run, ())) for run in runs]
    assert ([sum(counts)] if omnigen else [count for count in counts if count]) == [each.count for each in shape.blocks]
    assert (shape.passes > 1) == (preset.guidance > 1 and not getattr(config, "guidance_embeds", False))
    assert preset.text_tokens in (0, shape.text_tokens)


def with_adapter(network: Any, preset: str, dtype: torch.dtype) -> Any:
    """The network as the shipped trainings prepare it: frozen in `dtype`, with an fp32 adapter."""
    device = next(network.parameters()).device
    network.to(dtype).requires_grad_(False)
    with torch.device(device):
        targets = list(adapted_layers(network, preset))
        config = LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=targets)
        config._register_custom_module({nn.Linear: AdaptedLinear})
        network.add_adapter(config, ADAPTER)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return network


def run_network(network: Any, shape: EditorArchitecture, tokens: EditTokens, edits: int, *, bf16: bool) -> Tensor:
    """A pass of edits of these tokens, as the editors' `velocity` makes it."""
    device = next(network.parameters()).device
    with torch.device(device), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        sigma, axes = torch.rand(edits), len(getattr(network.config, "axes_dims_rope", ()))
        inputs: dict[str, Any] = {
            "hidden_states": torch.randn(edits, tokens.image, shape.latent, dtype=network.dtype),
            "encoder_hidden_states": torch.randn(edits, tokens.text, shape.text_width, dtype=network.dtype),
            "timestep": sigma,
            "return_dict": False,
        }
        if shape.blocks[0].sandwiched:
            inputs["grids"] = [(tokens.image // 32, 16)] * 2
        elif shape.blocks[0].norm_inputs:
            inputs["img_shapes"] = [[(1, tokens.image // 32, 16)] * 2] * edits
        else:
            inputs |= {"guidance": sigma if network.config.guidance_embeds else None}
            inputs |= {"txt_ids": torch.zeros(tokens.text, axes), "img_ids": torch.zeros(tokens.image, axes)}
        if hasattr(network.config, "pooled_projection_dim"):
            pooled = torch.randn(edits, network.config.pooled_projection_dim, dtype=network.dtype)
            inputs["pooled_projections"] = pooled
        output: Tensor = network(**inputs)[0]
    return output.float()


@pytest.fixture
def _fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device torch would take the attention that stores all scores."""

    def attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
        attended: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]
        return attended

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attention)


@pytest.mark.usefixtures("_fused_attention")
@pytest.mark.parametrize("name", ["flux-kontext", "flux2-klein-4b"])
def test_a_pass_at_real_size_keeps_what_the_plan_says(name: str) -> None:
    shape, edits = read_editor_architecture(name), 2
    network = with_adapter(build_published(name).network, shape.preset, torch.float32)
    tokens = edit_tokens(shape, SIDE**2)
    with kept_by_autograd(network) as kept:
        run_network(network, shape, tokens, edits, bf16=False)
    planned = edits * sum(
        blocks.count * kept_by_block(shape, blocks, tokens, 4, adapter=True) for blocks in shape.blocks
    )
    assert planned == pytest.approx(kept.total, rel=0.02)


FLUX: dict[str, Any] = {
    "in_channels": 16,
    "attention_head_dim": 64,
    "num_attention_heads": 4,
    "joint_attention_dim": 96,
    "num_layers": 2,
}
SMALL: dict[str, dict[str, Any]] = {
    "flux-kontext": FLUX
    | {"num_single_layers": 3, "pooled_projection_dim": 32, "guidance_embeds": True, "axes_dims_rope": (16, 24, 24)},
    "flux2-klein-4b": FLUX | {"num_single_layers": 3, "guidance_embeds": False, "axes_dims_rope": (16, 16, 16, 16)},
    "qwen-image-edit-plus": FLUX | {"num_layers": 5, "out_channels": 4, "axes_dims_rope": (16, 24, 24)},
    "omnigen2": {
        "in_channels": 4,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "text_feat_dim": 96,
        "num_layers": 4,
        "num_refiner_layers": 1,
        "axes_dim_rope": (24, 20, 20),
    },
}
SMALL["flux2-dev"] = SMALL["flux2-klein-4b"] | {"guidance_embeds": True}
SMALL["qwen-image-edit-2511"] = SMALL["qwen-image-edit-plus"] | {"zero_cond_t": True}
"""The real classes, small: several blocks of 256 numbers a token."""
INNER = {name: 768 if name.startswith("flux2") else 1024 for name in FAMILIES}
COUNTS = {name: (2, 3) if name.startswith("flux") else (5,) for name in FAMILIES}
TOKENS = EditTokens(256, 64)


def small_editor(name: str) -> tuple[Any, EditorArchitecture]:
    """A network of the real class that runs here, and its shape."""
    torch.manual_seed(0)
    network = type(build_published(name).network)(**SMALL[name])
    real, changes = read_editor_architecture(name), {"inner": INNER[name], "key_heads": 2 if name == "omnigen2" else 0}
    blocks = [
        blocks.model_copy(update=changes | {"count": count})
        for blocks, count in zip(real.blocks, COUNTS[name], strict=True)
    ]
    ends = sum(each.in_features + each.out_features for each in adapted_layers(network, real.preset).values())
    sizes = {"width": 256, "heads": 4, "latent": 16, "text_width": 96, "blocks": tuple(blocks), "adapter_ends": ends}
    return network, real.model_copy(update=sizes | {"weights": weights_of(network)})


@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", FAMILIES)
def test_each_kind_of_pass_keeps_what_the_plan_says(name: str, size: int, adapter: bool) -> None:
    network, shape = small_editor(name)
    if adapter:
        with_adapter(network, shape.preset, torch.bfloat16 if size == 2 else torch.float32)
    with kept_by_autograd(network) as kept:
        run_network(network, shape, TOKENS, 2, bf16=size == 2)
    casts = size * (RANK * shape.adapter_ends if adapter else shape.weights) if size == 2 else 0
    blocks = sum(each.count * kept_by_block(shape, each, TOKENS, size, adapter=adapter) for each in shape.blocks)
    assert 2 * blocks + casts == pytest.approx(kept.total, rel=0.06)


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("flux-kontext", 2),
        *(pytest.param(name, 2, marks=pytest.mark.extended("the same of other blocks")) for name in FAMILIES[1:]),
        pytest.param("flux-kontext", 4, marks=pytest.mark.extended("the same in fp32")),
    ],
)
def test_the_peak_of_an_update(name: str, size: int, checkpointing: bool) -> None:
    network, shape = small_editor(name)
    with_adapter(network, shape.preset, torch.bfloat16 if size == 2 else torch.float32)
    if checkpointing:
        network.enable_gradient_checkpointing()

    def update() -> None:
        run_network(network, shape, TOKENS, 2, bf16=size == 2).square().mean().backward()

    def forward() -> None:
        with torch.no_grad():
            run_network(network, shape, TOKENS, 2, bf16=size == 2)

    update()  # gradients are there
    casts = size * RANK * shape.adapter_ends if size == 2 else 0
    planned = 2 * update_memory(shape, TOKENS, size, adapter=True, checkpointing=checkpointing) + casts
    assert planned == pytest.approx(tensor_peak(update), rel=0.12)
    assert 2 * working_memory(shape, TOKENS, size) == pytest.approx(tensor_peak(forward), rel=0.12)


CODECS: dict[str, Callable[[], Any]] = {
    "flux-kontext": lambda: AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=2,
        latent_channels=16,
    ),
    "qwen-image-edit-plus": lambda: AutoencoderKLQwenImage(base_dim=24),
}
"""Codecs of the real classes at a quarter of their width."""


@pytest.mark.parametrize("name", CODECS)
def test_what_a_codec_holds_for_each_pixel(name: str) -> None:
    codec, shape, side, images = CODECS[name]().to(torch.bfloat16), read_editor_architecture(name).codec, 128, 2
    frames = (1,) if name.startswith("qwen") else ()
    pixels = torch.randn(images, 3, *frames, side, side, dtype=torch.bfloat16)
    with torch.no_grad():
        latents = codec.encode(pixels).latent_dist.mode()
        encoding = tensor_peak(lambda: codec.encode(pixels).latent_dist.mode())
        decoding = tensor_peak(lambda: codec.decode(latents).sample)
    quarter_bytes = 2 * images * side**2 / 4
    for measured, elements in ((encoding, shape.encode), (decoding, shape.decode)):
        # Convolutions of some processors copy nothing, those of others pad what they copy.
        assert measured <= 1.1 * elements * quarter_bytes <= 1.85 * measured


def test_lora_rl_of_flux_kontext_at_512_pixels_leaves_ten_of_eighty_gigabytes() -> None:
    settings = RlSettings(members=8, micro_batch=8, gradient_checkpointing=True)
    training = rl_training(settings, 1)
    need = plan_training(read_editor_architecture("flux-kontext"), training, 1, SIDE**2)
    assert training.adapter_rank == 32
    assert need.total <= 80e9 - 10e9


def test_every_editor_preset_has_a_shape() -> None:
    planned = {read_editor_architecture(name).preset for name in editor_architecture_names()}
    assert planned == set(preset_names(PRESETS))


def test_what_fits_nowhere_has_no_number() -> None:
    shape = read_editor_architecture("flux-kontext")
    assert fewest_gpus(lambda gpus: plan_editing(shape, 1024**2, 1).total, 80 * 2**30) == 1
    assert fewest_gpus(lambda gpus: plan_editing(shape, 1024**2, 1).total, 24 * 2**30) is None
    assert fewest_gpus(lambda gpus: 16.0 / gpus, 5.0) == 4
