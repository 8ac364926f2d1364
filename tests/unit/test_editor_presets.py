"""The editors' presets: their targets are layers of the real networks, and each preset is tested."""

import diffusers
import pytest
import torch

from editloop.errors import EditLoopError
from editloop.models.editors.omnigen2_network import OmniGen2Transformer2DModel
from editloop.models.editors.opening import EDITORS
from editloop.models.editors.settings import PRESETS, EditorSettings, read_editor_preset
from editloop.models.editors.step1x_network import Step1XEditTransformer2DModel
from editloop.settings_file import preset_names

REAL = {
    "flux-kontext": (diffusers.FluxTransformer2DModel, {"guidance_embeds": True}, 11.90),
    "qwen-image-edit-plus": (diffusers.QwenImageTransformer2DModel, {}, 20.43),
    "flux2-dev": (diffusers.Flux2Transformer2DModel, {}, 32.22),
    "flux2-klein": (
        diffusers.Flux2Transformer2DModel,
        {
            "num_layers": 5,
            "num_single_layers": 20,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
            "guidance_embeds": False,
        },
        3.88,
    ),
    "omnigen2": (OmniGen2Transformer2DModel, {}, 3.97),
    "step1x-edit-v1p1": (Step1XEditTransformer2DModel, {}, 12.4),
    "step1x-edit-v1p2": (Step1XEditTransformer2DModel, {"enable_text_token_mapping": True}, 12.4),
}
REAL["flux2-klein-base"] = REAL["flux2-klein"]
REAL["step1x-edit-v1p0"] = REAL["step1x-edit-v1p1"]


@pytest.mark.parametrize("name", sorted(REAL))
def test_a_presets_targets_are_layers_of_the_real_network(name):
    settings = read_editor_preset(name)
    kind, config, billions = REAL[name]
    with torch.device("meta"):
        network = kind(**config)
    assert sum(one.numel() for one in network.parameters()) / 1e9 == pytest.approx(billions, abs=0.05)
    linear = [key for key, module in network.named_modules() if isinstance(module, torch.nn.Linear)]
    chosen = [key for key in linear if any(key == end or key.endswith(f".{end}") for end in settings.targets)]
    blocks = [key for key in linear if "transformer_blocks." in key and "mod" not in key and "norm" not in key]
    if name == "omnigen2":  # published: the attention of every block
        blocks = [key for key in linear if ".attn." in key]
        assert len(blocks) == 4 * (32 + 3 * 2)
    assert sorted(set(blocks) - set(chosen)) == []
    assert hasattr(diffusers, settings.pipeline) or settings.pipeline in EDITORS


def test_every_preset_is_tested_and_unknown_ones_are_refused_with_the_names():
    assert preset_names(PRESETS) == sorted(REAL)
    with pytest.raises(EditLoopError, match="there are flux-kontext"):
        read_editor_preset("flux")
    with pytest.raises(ValueError, match="height and a width"):
        EditorSettings(pipeline="X", area=1024, sizes=((0, 32),), steps=1, targets=("to_q",))
