"""Open an editor to train it: the types of its weights, its adapter, and where its frozen parts are."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from editloop.content import sha256_json
from editloop.models.backbones.spreading import Spread
from editloop.models.editors.opening import open_editor
from editloop.models.editors.protocol import Editor
from editloop.training.distributed import device
from editloop.training.editor_settings import EditorTrainingSettings
from editloop.training.encoding_store import GIGABYTE, EncodingStore
from editloop.training.settings import RunSettings


def frozen_dtype(run: RunSettings) -> torch.dtype:
    """Return the type of weights that are not trained: text encoders, codec, and the base of an adapter.

    It is bfloat16 on a GPU, unless the training computes in fp32, and on a CPU where the settings ask for it: half the
    memory, and no conversion at each pass.

    Args:
        run: The training's settings.
    """
    coarse = run.precision == "bf16" or (run.precision == "auto" and device().type == "cuda")
    return torch.bfloat16 if coarse else torch.float32


def encoding_dtype(run: RunSettings) -> torch.dtype | None:
    """Return the type in which encodings are kept: bfloat16 where they are computed in it, None to leave them.

    Args:
        run: The training's settings.
    """
    return torch.bfloat16 if frozen_dtype(run) == torch.bfloat16 else None


def open_encoding_store(
    checkpoints: Path, editor: str, facts: dict[str, Any], run: RunSettings, settings: EditorTrainingSettings
) -> EncodingStore:
    """Return the store of a training's encodings, which the ranks of a machine share.

    Args:
        checkpoints: The training's folder.
        editor: Address of the editor that encodes.
        facts: What is trained on; its digests tell editors of one address apart.
        run: The training's settings.
        settings: Settings of the editor's training.
    """
    name = sha256_json([editor, facts, str(encoding_dtype(run))])[:16]
    return EncodingStore(checkpoints / "encodings" / name, most_bytes=settings.encodings_gb * GIGABYTE)


def open_to_train(
    address: str,
    run: RunSettings,
    settings: EditorTrainingSettings,
    *,
    whole_dtype: torch.dtype,
    bf16: bool,
    with_base: bool = True,
    spread: Spread | None = None,
) -> tuple[Editor, list[nn.Parameter]]:
    """Open an editor on this rank's device and prepare it for training.

    Args:
        address: A pipeline's folder, or the name of a shipped editor.
        run: The training's settings.
        settings: Settings of the editor's training.
        whole_dtype: Type of the network's weights where all of them are trained.
        bf16: Whether the network computes in bfloat16.
        with_base: Whether the training asks the frozen editor.
        spread: Where each rank keeps its part of the network's weights; None: it has them whole.

    Returns:
        The editor, and its parameters to train.
    """
    frozen = frozen_dtype(run)
    editor = open_editor(
        address,
        device=str(device()),
        dtype=frozen if run.adapter else whole_dtype,
        encoder_dtype=frozen,
        on_demand=settings.encoders == "on-demand" or (settings.encoders == "auto" and device().type == "cuda"),
        spread=spread,
    )
    return editor, prepare_to_train(editor, run, settings, bf16=bf16, with_base=with_base)


def prepare_to_train(
    editor: Editor, run: RunSettings, settings: EditorTrainingSettings, *, bf16: bool, with_base: bool = True
) -> list[nn.Parameter]:
    """Prepare an opened editor for training.

    Args:
        editor: The editor. It gets a float32 adapter, drawn from the seed, or all its weights become trainable.
        run: The training's settings.
        settings: Settings of the editor's training.
        bf16: Whether the network computes in bfloat16.
        with_base: Whether the training asks the frozen editor.

    Returns:
        The parameters to train.
    """
    torch.manual_seed(run.seed)
    editor.bf16 = bf16
    if run.adapter is None:
        return editor.train_whole(with_base=with_base)
    return editor.add_adapter(run.adapter.rank, run.adapter.alpha, settings.targets or None)
