"""EditScore folders: whole weights, or an adapter and which base it goes on.

    editscore.json      the questions and how they are answered (EditScoreSettings)
    backbone/           whole weights as Hugging Face writes them, with tokenizer/; or instead of both
    adapter/, base.json an adapter in PEFT's format, and the base's folder or shipped name with its content address
    manifest.json       last: digests of all of it

A base is such a folder, or a checkpoint of Qwen2.5-VL or Qwen3-VL as released.
"""

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import (
    AutoConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from components.edit_score.adapters import Adapter, check_fits, read_adapter
from components.edit_score.settings import EditScoreSettings
from infra.content import MANIFEST, complete_folder, read_manifest, sha256_file, sha256_json
from infra.errors import EditLoopError

SETTINGS, BASE = "editscore.json", "base.json"
FAMILIES = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen3_vl": Qwen3VLForConditionalGeneration}
ABSENT = ("lm_head.weight",)
"""Keys that a checkpoint need not have: shared with the input embedding."""


class BaseReference(BaseModel):
    """What `base.json` says of the weights that an adapter goes on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    """Folder or shipped name."""
    sha256: str
    """Content address of it, as `base_digest` computes it."""


class Opened(NamedTuple):
    """A base, in memory."""

    backbone: Any
    tokenizer: PreTrainedTokenizerFast
    settings: EditScoreSettings


def base_folder(base: str | Path) -> Path:
    """The folder of a base given by folder or shipped name; EditLoopError where there is none."""
    shipped = Path(str(files("components.edit_score"))) / "weights" / str(base)
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
    """Content address of a base: its manifest's, or of a released checkpoint that of its weights and settings."""
    if (folder / MANIFEST).is_file():
        return str(read_manifest(folder)["sha256"])
    kept = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    return sha256_json({path.name: sha256_file(path) for path in kept})


def open_base(folder: Path, dtype: torch.dtype) -> Opened:
    """A base's weights, tokenizer and settings; digests are checked where it has a manifest."""
    if (folder / SETTINGS).is_file():
        read_manifest(folder, check=True)
        if (folder / BASE).is_file():
            raise EditLoopError(f"base {folder}: is itself an adapter on a base; give that base, or whole weights.")
        settings = read_settings(folder)
        return Opened(_backbone(folder / "backbone", dtype), _tokenizer(folder / "tokenizer"), settings)
    return Opened(_backbone(folder, dtype), _tokenizer(folder), EditScoreSettings(**_image_scale(folder)))


def read_settings(folder: Path) -> EditScoreSettings:
    """`editscore.json`; EditLoopError names the keys that are wrong."""
    if not (folder / SETTINGS).is_file():
        raise EditLoopError(f"EditScore model {folder}: no {SETTINGS} there. Give a model's folder or a shipped name.")
    try:
        return EditScoreSettings.model_validate_json((folder / SETTINGS).read_text())
    except ValidationError as error:
        raise EditLoopError(f"{folder}/{SETTINGS}: {error}") from error


def save_whole(
    folder: Path, backbone: Any, tokenizer: Any, settings: EditScoreSettings, facts: dict[str, object],
    extra: dict[str, object],
) -> None:  # fmt: skip
    """Write a model's folder with all its weights, manifest last; `extra` = {file name: JSON value} beside them."""
    with complete_folder(folder, facts) as out:
        backbone.save_pretrained(out / "backbone", safe_serialization=True)
        tokenizer.save_pretrained(out / "tokenizer")
        _write(out, settings, extra)


def save_adapted(
    folder: Path, adapter: Path, base: str, settings: EditScoreSettings, facts: dict[str, object],
    extra: dict[str, object],
) -> None:  # fmt: skip
    """Write a model's folder with an adapter (a copy of PEFT's folder) and the address of its base, manifest last."""
    found = base_folder(base)
    named = base if "/" not in base and found != Path(base) else str(found.absolute())
    reference = BaseReference(base=named, sha256=base_digest(found))
    with complete_folder(folder, facts) as out:
        shutil.copytree(adapter, out / "adapter")
        (out / BASE).write_text(reference.model_dump_json(indent=2) + "\n")
        _write(out, settings, extra)


def referenced_base(folder: Path, base: str | Path | None) -> Path:
    """The base that an adapter's folder names, or `base` in its place; EditLoopError where its content is another's."""
    reference = BaseReference.model_validate_json((folder / BASE).read_text())
    found = base_folder(base or reference.base)
    digest = base_digest(found)
    if digest != reference.sha256:
        raise EditLoopError(
            f"{folder}: its adapter was trained on {reference.base} ({reference.sha256[:12]}), and {found} is "
            f"{digest[:12]}. Give the base that it was trained on."
        )
    return found


def check_base_name(adapter: Adapter, folder: Path, name: str | None) -> None:
    """EditLoopError where a released adapter names another base than `folder` holds.

    What the folder holds is `name` where the caller says so; or else what its config calls itself, its own name, or the
    hub's name in a hub's cache (`models--OWNER--NAME`). One of them must be what the adapter says, without the owner.
    """
    wanted = adapter.base.rstrip("/").rsplit("/", 1)[-1]
    path = folder.absolute()
    inner = folder / "backbone" if (folder / SETTINGS).is_file() else folder
    own = str(json.loads((inner / "config.json").read_text()).get("_name_or_path") or "")
    cached = [part.rsplit("--", 1)[-1] for part in path.parts if part.startswith("models--")]
    known = {name.rsplit("/", 1)[-1]} if name else {path.name, own.rstrip("/").rsplit("/", 1)[-1], *cached}
    if wanted and wanted.lower() not in {one.lower() for one in known}:
        raise EditLoopError(
            f"adapter {adapter.folder}: was trained on {adapter.base!r}, and {folder} calls itself "
            f"{', '.join(sorted(known - {''}))}. Give that base; if this folder holds it under another name, say so "
            f"(base name {wanted!r})."
        )


def adopt(
    base: str, adapter: Path, folder: Path, settings: EditScoreSettings | None = None, base_name: str | None = None
) -> None:
    """Write a model's folder from a released adapter and its base, after checking that they belong together.

    Settings default to the published questions; see EditScoreModel.with_adapter for `base_name`. The base's weights are
    read for their digest only.
    """
    found, read = base_folder(base), read_adapter(adapter)
    check_base_name(read, found, base_name)
    inner = found / "backbone" if (found / SETTINGS).is_file() else found
    with torch.device("meta"):
        check_fits(_family(inner)(AutoConfig.from_pretrained(inner, local_files_only=True)), read)
    own = read_settings(found) if inner != found else EditScoreSettings(**_image_scale(found))
    scale = own.model_dump(include={"image_mean", "image_std"})
    asked = own if settings is None else settings.model_copy(update=scale)
    save_adapted(folder, adapter, base, asked, {"adapter": str(adapter), "base": base}, {})


def _write(out: Path, settings: EditScoreSettings, extra: dict[str, object]) -> None:
    (out / SETTINGS).write_text(settings.model_dump_json(indent=2) + "\n")
    for name, value in extra.items():
        (out / name).write_text(json.dumps(value, indent=1) + "\n")


def _family(folder: Path) -> Any:
    """The class of a checkpoint."""
    if not (folder / "config.json").is_file():
        raise EditLoopError(f"{folder}: no config.json; a checkpoint of Qwen2.5-VL or Qwen3-VL has one.")
    family = json.loads((folder / "config.json").read_text()).get("model_type")
    if family not in FAMILIES:
        raise EditLoopError(f"{folder}/config.json: model_type {family!r}; known are {', '.join(FAMILIES)}.")
    return FAMILIES[family]


def _backbone(folder: Path, dtype: torch.dtype) -> Any:
    family = _family(folder)
    if not any(folder.glob("*.safetensors")):
        raise EditLoopError(f"{folder}: no *.safetensors. Weights in pickle files are not read: they can run code.")
    backbone, found = family.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
    )
    missing = sorted(set(found["missing_keys"]) - set(ABSENT if backbone.config.tie_word_embeddings else ()))
    wrong = {"missing": missing, "surplus": sorted(found["unexpected_keys"]), "of another shape": sorted(
        str(key[0]) if isinstance(key, tuple) else str(key) for key in found["mismatched_keys"])}  # fmt: skip
    told = [f"{what}: {', '.join(keys[:3])}{' ...' * (len(keys) > 3)}" for what, keys in wrong.items() if keys]
    if told:
        raise EditLoopError(f"{folder}: keys do not fit its config.json; {'; '.join(told)}. Fetch the checkpoint anew.")
    return backbone.eval()


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    if not (folder / "tokenizer.json").is_file():
        raise EditLoopError(f"{folder}: no tokenizer.json; the checkpoint's tokenizer belongs beside its weights.")
    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _image_scale(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise EditLoopError(f"{folder}: no preprocessor_config.json; it says how the checkpoint's pictures are scaled.")
    found = json.loads(path.read_text())
    return {key: found[key] for key in ("image_mean", "image_std") if key in found}
