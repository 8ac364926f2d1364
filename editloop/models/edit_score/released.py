"""Make a judge's folder of released EditScore weights and their base: `editloop judge add editscore`.

A release is an adapter of its base in PEFT's format, or whole weights into which it is merged. Configuration,
tokenizer, image processor and chat template are those of the base.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from transformers.utils import GENERATION_CONFIG_NAME

from editloop.content import MANIFEST, complete_folder
from editloop.errors import EditLoopError
from editloop.models.backbones.chat_opening import system_message
from editloop.models.backbones.checkpoints import (
    FAMILIES,
    empty_backbone,
    fitting_tensors,
    generation_values,
    image_processor_of,
    outline_backbone,
    read_config,
)
from editloop.models.backbones.weight_files import copy_weights
from editloop.models.edit_score.adapters import CONFIG, check_fits, read_adapter
from editloop.models.edit_score.checkpoints import (
    SETTINGS,
    check_base_name,
    read_tokenizer,
    save_adapter_model,
    write_settings,
)
from editloop.models.edit_score.rows import RowMaker
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.edit_score.wording import ScoreWording
from editloop.models.judge_protocol import warn_of_no_wording, wording_facts
from editloop.settings_file import validate_settings

LOG = logging.getLogger(__name__)
PICTURE_MARKS = {"qwen2_5_vl": "<img{n}>: ", "qwen3_vl": ""}
"""Text before each picture with which a family's releases were trained."""


class ReleaseSettings(NamedTuple):
    """Settings of a release in place of its own."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Bounds of a picture's pixels; None takes those of the base's image processor."""
    repetition_penalty: float | None = None
    """None takes that of the base's generation settings."""


def add_editscore(
    weights: Path,
    base: Path,
    out: Path,
    *,
    wording: ScoreWording | None = None,
    base_name: str | None = None,
    changes: ReleaseSettings = ReleaseSettings(),
) -> EditScoreSettings:
    """Write an EditScore model's folder from released weights and the folder of their base.

    All keys and shapes are checked before anything is written. An adapter is copied, and its folder refers to the
    base; whole weights are copied file by file, in their own types.

    Args:
        weights: The release: an adapter's folder in PEFT's format, or a folder of merged weights.
        base: Folder of the base, a checkpoint in Hugging Face's layout. For merged weights its own are not read.
        out: The folder to write. One that an earlier call wrote is replaced.
        wording: The questions with which the weights were trained; None takes EditLoop's own, and marks the model.
        base_name: What model the base's folder holds, if its own name does not tell. Only for an adapter.
        changes: Settings in place of the release's.

    Returns:
        The settings of the model.

    Raises:
        EditLoopError: The weights or the base cannot be used, do not belong together, or `out` is another folder.
    """
    if out.exists() and not ((out / MANIFEST).is_file() and (out / SETTINGS).is_file()):
        raise EditLoopError(f"--out {out}: is there, and no EditScore model's folder. Give a new folder.")
    if wording is None:
        warn_of_no_wording(weights)
    config, tokenizer = read_config(base), read_tokenizer(base)
    settings = _settings(base, config, tokenizer, wording, changes)
    RowMaker(config, tokenizer, settings)  # checks that the tokenizer has the chat format's tokens
    facts: dict[str, object] = {"weights": str(weights), "base": str(base)}
    if (weights / CONFIG).is_file():
        adapter = read_adapter(weights)
        check_base_name(adapter, base, base_name)
        check_fits(outline_backbone(base, generates=True), adapter)
        save_adapter_model(out, weights, str(base), settings, facts, {})
        return settings
    if base_name is not None:
        raise EditLoopError(f"--base-name {base_name}: {weights} has no {CONFIG}, so it is no adapter. Leave it out.")
    tensors = fitting_tensors(weights, empty_backbone(config, generates=True), generates=True)
    with complete_folder(out, wording_facts(settings) | facts) as folder:
        config.architectures = [FAMILIES[config.model_type].generator.__name__]
        config.save_pretrained(folder / "backbone")
        tokenizer.save_pretrained(folder / "tokenizer")
        copy_weights({stored.key: stored for stored in tensors.values()}, folder / "backbone")
        if (base / GENERATION_CONFIG_NAME).is_file():
            (folder / "backbone" / GENERATION_CONFIG_NAME).write_bytes((base / GENERATION_CONFIG_NAME).read_bytes())
        write_settings(folder, settings, {})
        LOG.info("digests of %s are computed", out)
    return settings


def _settings(
    base: Path, config: Any, tokenizer: Any, wording: ScoreWording | None, changes: ReleaseSettings
) -> EditScoreSettings:
    processor = image_processor_of(base)
    max_pixels = changes.max_pixels or processor.max_pixels
    least = processor.min_pixels
    min_pixels = changes.min_pixels or (least and max_pixels and min(least, max_pixels))
    if min_pixels is None or max_pixels is None:
        raise EditLoopError(
            f"{base}: no file of its image processor says how large pictures are (size, or min_pixels and max_pixels). "
            "Take the preprocessor_config.json that the base was published with, or give --min-pixels and --max-pixels."
        )
    system = wording.system if wording and wording.system is not None else system_message(base, config, tokenizer)
    questions = {"sc": wording.sc, "pq": wording.pq, "closing": ""} if wording else {}
    penalty = changes.repetition_penalty or generation_values(base).repetition_penalty
    return validate_settings(
        EditScoreSettings,
        {
            **questions,
            "system": system,
            "picture_mark": PICTURE_MARKS[config.model_type],
            "repetition_penalty": penalty,
            "wording": "trained" if wording else "substitute",
            "min_pixels": min_pixels,
            "max_pixels": max_pixels,
            **processor.normalisation,
        },
        f"release on {base}",
        "Correct the options.",
    )
