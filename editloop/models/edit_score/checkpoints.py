"""Read and write EditScore folders: whole weights, or an adapter and a reference to its base.

    editscore.json      the settings (EditScoreSettings)
    backbone/           whole weights in Hugging Face's format, with tokenizer/; or instead of both
    adapter/, base.json an adapter in PEFT's format, and the base's folder or shipped name with its content address
    manifest.json       written last: digests of all files

A base is such a folder with whole weights, or a released checkpoint of Qwen2.5-VL or Qwen3-VL.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from editloop.content import MANIFEST, complete_folder, read_manifest, sha256_file, sha256_json
from editloop.errors import EditLoopError
from editloop.json_file import read_json_object, read_json_record
from editloop.models.backbones.checkpoints import image_processor_of, load_backbone
from editloop.models.backbones.placement import check_model_folder
from editloop.models.backbones.spreading import Spread
from editloop.models.edit_score.adapters import Adapter
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.judge_protocol import wording_facts
from editloop.settings_file import FrozenModel

SETTINGS, BASE = "editscore.json", "base.json"


class BaseReference(FrozenModel):
    """Content of `base.json`: the weights that an adapter belongs to."""

    base: str
    """Folder or shipped name."""
    sha256: str
    """Its content address, as `base_digest` computes it."""


class LoadedBase(NamedTuple):
    """A base in memory."""

    backbone: Any
    tokenizer: PreTrainedTokenizerFast
    settings: EditScoreSettings


def base_folder(base: str | Path) -> Path:
    """Return the folder of a base, or of an EditScore model.

    Args:
        base: A folder or a shipped name.

    Raises:
        EditLoopError: There is no model of that name or in that folder.
    """
    shipped = Path(__file__).with_name("weights") / str(base)
    if "/" not in str(base) and (shipped / MANIFEST).is_file():
        return shipped
    folder = Path(base)
    if (folder / SETTINGS).is_file() or (folder / "config.json").is_file():
        return folder
    raise EditLoopError(
        f"base {str(base)!r}: neither a shipped name nor a folder with {SETTINGS} or a checkpoint's config.json. Give "
        "the folder that the base's weights lie in; nothing is fetched."
    )


def base_digest(folder: Path) -> str:
    """Return the content address of a base.

    It is the manifest's, or for a released checkpoint a digest of its .json and .safetensors files.

    Args:
        folder: The base's folder.
    """
    if (folder / MANIFEST).is_file():
        return str(read_manifest(folder)["sha256"])
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    return sha256_json({path.name: sha256_file(path) for path in paths})


def open_base(folder: Path, dtype: torch.dtype, *, spread: Spread | None = None) -> LoadedBase:
    """Load a base. Where it has EditScore settings, its files are checked against the manifest.

    A released checkpoint gets the published settings, with its own image normalisation.

    Args:
        folder: The base's folder.
        dtype: Type of the weights.
        spread: Where each rank of a job keeps its part of the weights; None: this process has them whole.

    Returns:
        Weights, tokenizer and settings.

    Raises:
        EditLoopError: The base is itself an adapter, or its files are missing, changed, pickled, or do not fit its
            config.
    """
    if (folder / SETTINGS).is_file():
        check_model_folder(folder)
        if (folder / BASE).is_file():
            raise EditLoopError(f"base {folder}: is itself an adapter on a base; give that base, or whole weights.")
        settings, tokenizer = read_settings(folder), folder / "tokenizer"
    else:
        settings, tokenizer = _released_settings(folder), folder
    backbone = load_backbone(weights_folder(folder), dtype, generates=True, spread=spread)
    return LoadedBase(backbone, read_tokenizer(tokenizer), settings)


def weights_folder(base: Path) -> Path:
    """Return the folder of a base's weights and their configuration.

    Args:
        base: The base's folder.
    """
    return base / "backbone" if (base / SETTINGS).is_file() else base


def read_settings(folder: Path) -> EditScoreSettings:
    """Read a folder's `editscore.json`.

    Args:
        folder: The folder of an EditScore model.

    Raises:
        EditLoopError: There is none, or it is not valid. The message names the wrong keys.
    """
    if not (folder / SETTINGS).is_file():
        raise EditLoopError(f"EditScore model {folder}: no {SETTINGS} there. Give a model's folder or a shipped name.")
    return read_json_record(folder / SETTINGS, EditScoreSettings, "Restore the file.")


def save_adapter_model(
    folder: Path,
    adapter: Path,
    base: str,
    settings: EditScoreSettings,
    facts: dict[str, object],
    extra: dict[str, object],
) -> None:
    """Write a model's folder with an adapter and a reference to its base, manifest last.

    Args:
        folder: The folder to write. An existing one is replaced.
        adapter: The folder of an adapter in PEFT's format, which is copied.
        base: Folder or shipped name of the base.
        settings: Settings of the model.
        facts: Stored in the manifest.
        extra: JSON values by file name, written beside the adapter.

    Raises:
        EditLoopError: There is no such base.
    """
    base_path = base_folder(base)
    base_name = base if "/" not in base and base_path != Path(base) else str(base_path.absolute())
    reference = BaseReference(base=base_name, sha256=base_digest(base_path))
    with complete_folder(folder, wording_facts(settings) | facts) as out:
        shutil.copytree(adapter, out / "adapter")
        (out / BASE).write_text(reference.model_dump_json(indent=2) + "\n")
        write_settings(out, settings, extra)


def resolve_base(folder: Path, base: str | Path | None) -> Path:
    """Return the folder of the base that an adapter belongs to, after checking its content address.

    Args:
        folder: The EditScore folder with the adapter.
        base: Folder or shipped name of the base, in place of the one in `base.json`; None takes that one.

    Raises:
        EditLoopError: There is no such base, or its content is not that of the base that the adapter was trained on.
    """
    reference = read_json_record(folder / BASE, BaseReference, "Restore the file.")
    base_path = base_folder(base or reference.base)
    digest = base_digest(base_path)
    if digest != reference.sha256:
        raise EditLoopError(
            f"{folder}: its adapter was trained on {reference.base} ({reference.sha256[:12]}), and {base_path} is "
            f"{digest[:12]}. Give the base that it was trained on."
        )
    return base_path


def check_base_name(adapter: Adapter, folder: Path, name: str | None) -> None:
    """Check that a folder holds the base that a released adapter names.

    The last part of the adapter's base name must be a name of the folder, without regard to case. Where `name` is None,
    the names of the folder are the one in its config.json, its own, and the one in the path of a Hugging Face cache
    (`models--OWNER--NAME`).

    Args:
        adapter: The adapter. One that names no base fits any.
        folder: The base's folder.
        name: Name of the model in the folder, where the caller knows it.

    Raises:
        EditLoopError: The adapter names another base.
    """
    expected_name = adapter.base.rstrip("/").rsplit("/", 1)[-1]
    path = folder.absolute()
    config = read_json_object(folder / "config.json", "Give the base's folder with its config.json.")
    config_name = str(config.get("_name_or_path") or "")
    cached_names = [part.rsplit("--", 1)[-1] for part in path.parts if part.startswith("models--")]
    names = (
        {name.rsplit("/", 1)[-1]} if name else {path.name, config_name.rstrip("/").rsplit("/", 1)[-1], *cached_names}
    )
    if expected_name and expected_name.lower() not in {known_name.lower() for known_name in names}:
        raise EditLoopError(
            f"adapter {adapter.folder}: was trained on {adapter.base!r}, and {folder} calls itself "
            f"{', '.join(sorted(names - {''}))}. Give that base; if this folder holds it under another name, say so "
            f"(base name {expected_name!r})."
        )


def write_settings(out: Path, settings: EditScoreSettings, extra: dict[str, object]) -> None:
    """Write a model's settings and further files into its folder.

    Args:
        out: The folder.
        settings: The settings.
        extra: Values of further JSON files, by file name.
    """
    (out / SETTINGS).write_text(settings.model_dump_json(indent=2) + "\n")
    for name, value in extra.items():
        (out / name).write_text(json.dumps(value, indent=1) + "\n")


def _released_settings(folder: Path) -> EditScoreSettings:
    """The published settings, with the image normalisation of a released checkpoint."""
    return EditScoreSettings().model_copy(update=image_processor_of(folder).normalisation)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read a tokenizer.

    Args:
        folder: The tokenizer's folder.

    Raises:
        EditLoopError: There is none.
    """
    if not (folder / "tokenizer.json").is_file():
        raise EditLoopError(f"{folder}: no tokenizer.json; the checkpoint's tokenizer belongs beside its weights.")
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return tokenizer
