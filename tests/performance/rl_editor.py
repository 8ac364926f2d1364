"""A FLUX Kontext of 10 M parameters for measurements of online RL: large enough that multiplications count."""

import atexit
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SIDE = 64
"""Pixels of a picture's side: 64 latents of the edit, 64 of the source and 32 of the text go through the network."""
PARAMETERS = 10_000_000


@cache
def kontext_folder() -> Path:
    """Folder of the untrained editor, real FLUX Kontext in all but its sizes."""
    import torch
    from diffusers import FluxTransformer2DModel

    from tests.tiny_editors import build_tiny_editor

    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    editor = build_tiny_editor("kontext")
    torch.manual_seed(0)
    network: Any = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=5,
        attention_head_dim=64,
        num_attention_heads=4,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(8, 28, 28),
    )
    assert abs(network.num_parameters() / PARAMETERS - 1) < 0.1
    editor.network = network
    editor.pipeline.register_modules(transformer=network)
    editor.settings = editor.settings.model_copy(update={"area": SIDE**2, "sizes": ((SIDE, SIDE),), "text_tokens": 32})
    editor.save(Path(folder.name))
    return Path(folder.name)
