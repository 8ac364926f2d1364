"""From what a person writes to an editor: a pipeline's folder, a shipped name, or a registered version."""

import json
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch

from editloop.errors import EditLoopError
from editloop.models.backbones.placement import placement
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.settings import EditorSettings, read_editor_preset, read_own_settings
from editloop.plugins import load_plugin, plugin_names

EDITORS = {
    "FluxKontextPipeline": "kontext.KontextEditor",
    "QwenImageEditPlusPipeline": "qwen_edit_plus.QwenEditPlusEditor",
    "Flux2KleinPipeline": "flux2_klein.Flux2KleinEditor",
}
"""By the pipeline's class as model_index.json has it: the editor's module and class in editloop.models.editors."""
FORMS = "a folder written by save_pretrained, the name of a shipped editor (`tiny-editor`), or models:/NAME@ALIAS"


def open_editor(
    address: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    settings: EditorSettings | None = None,
) -> PipelineEditor:
    """The editor behind an address.

    address: a pipeline's folder, a shipped name, `models:/NAME@ALIAS` or `models:/NAME/VERSION` of the registry.
    device: None takes the first GPU, or else the CPU. dtype: of the weights; None takes bfloat16 on a GPU, float32 on a
    CPU. settings: instead of those that the folder brings, or of its class's preset.

    Raises EditLoopError where there is no pipeline, or one of a class that has no editor.
    """
    kind = _kind_of(str(address))
    chosen_settings = settings or kind.settings
    if chosen_settings.pipeline != kind.pipeline.__name__:
        raise EditLoopError(
            f"editor {str(address)!r}: its settings are for {chosen_settings.pipeline}, its pipeline is "
            f"{kind.pipeline.__name__}."
        )
    target, weights = placement(device, dtype)
    parts = kind.editor.parts(kind.folder)
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.to(weights)  # from_pretrained leaves these as they are
    pipeline = kind.pipeline.from_pretrained(kind.folder, **parts, dtype=weights, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return kind.editor(pipeline.to(target), chosen_settings)


def outline_editor(address: str | Path) -> PipelineEditor:
    """The editor behind an address without its weights and without what reads text: it knows its layers and sizes.

    Takes no memory to speak of, whatever the editor's size. Raises as `open_editor`.
    """
    import diffusers

    kind = _kind_of(str(address))
    parts: dict[str, Any] = dict.fromkeys(name for name, value in kind.parts.items() if isinstance(value, list))
    for name in ("transformer", "vae"):
        part = getattr(diffusers, kind.parts[name][1], None)
        if part is not None:
            with torch.device("meta"):
                parts[name] = part.from_config(part.load_config(kind.folder / name))
    parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(kind.folder / "scheduler")
    return kind.editor(kind.pipeline(**parts | kind.editor.parts(kind.folder)), kind.settings)


class _Kind(NamedTuple):
    folder: Path
    parts: dict[str, Any]
    """model_index.json: the pipeline's parts, each with its library and class."""
    pipeline: Any
    """The diffusers class."""
    editor: type[PipelineEditor]
    settings: EditorSettings
    """What the folder brings, or its class's preset."""


def _kind_of(address: str) -> _Kind:
    import diffusers

    folder = find_editor(address)
    index = json.loads((folder / "model_index.json").read_text())
    name = index.get("_class_name")
    editor = _editor_class(name)
    if editor is None:
        names = (*EDITORS, *plugin_names("editloop.editors"))
        raise EditLoopError(
            f"editor {address!r}: its pipeline is {name}; there are editors for {', '.join(names)}. "
            "docs/editors.md says how to add one."
        )
    settings = read_own_settings(folder) or read_editor_preset(editor.preset(index))
    pipeline = getattr(diffusers, name, None) or editor.pipeline_class()
    return _Kind(folder, index, pipeline, editor, settings)


def _editor_class(pipeline: str) -> type[PipelineEditor] | None:
    """The editor of a pipeline's class: one that ships, or one that another package declares; None without either."""
    if pipeline in EDITORS:
        module, class_name = EDITORS[pipeline].split(".")
        shipped: type[PipelineEditor] = getattr(import_module(f"editloop.models.editors.{module}"), class_name)
        return shipped
    declared: type[PipelineEditor] | None = load_plugin("editloop.editors", pipeline)
    return declared


def find_editor(address: str) -> Path:
    """Where an editor's pipeline lies; a registered one is fetched and checked first. EditLoopError if nowhere."""
    if address.startswith("models:/"):
        from editloop.lineage.registry import resolve_model

        registered = resolve_model(address)
        if registered is None:
            raise EditLoopError(f"{address}: the registry has no such version; `editloop stage promote` sets an alias.")
        return registered
    shipped = Path(str(files("editloop.models.editors"))) / "weights" / address
    folder = shipped if "/" not in address and shipped.is_dir() else Path(address)
    if not (folder / "model_index.json").is_file():
        raise EditLoopError(
            f"editor {address!r}: not a shipped editor and no diffusers pipeline folder (model_index.json is missing). "
            f"Give {FORMS}."
        )
    return folder
