"""From what a person writes to an editor: a pipeline's folder, a shipped name, or a registered version."""

import json
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import torch

from components.editors.pipeline_editor import PipelineEditor
from components.editors.settings import EditorSettings, read_editor_preset, read_own_settings
from infra.errors import EditLoopError

EDITORS = {
    "FluxKontextPipeline": "kontext.KontextEditor",
    "QwenImageEditPlusPipeline": "qwen_edit_plus.QwenEditPlusEditor",
    "Flux2KleinPipeline": "flux2_klein.Flux2KleinEditor",
}
"""By the pipeline's class as model_index.json has it: the editor's module and class in components.editors."""
FORMS = "a folder written by save_pretrained, the name of a shipped editor (`tiny-editor`), or models:/NAME@ALIAS"


def open_editor(
    address: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32,
    settings: EditorSettings | None = None,
) -> PipelineEditor:  # fmt: skip
    """The editor behind an address.

    address: a pipeline's folder, a shipped name, `models:/NAME@ALIAS` or `models:/NAME/VERSION` of the registry.
    dtype: of the weights; `settings`: instead of those that the folder brings, or of its class's preset.

    Raises EditLoopError where there is no pipeline, or one of a class that has no editor.
    """
    import diffusers

    folder = find_editor(str(address))
    index = json.loads((folder / "model_index.json").read_text())
    name = index.get("_class_name")
    if name not in EDITORS:
        raise EditLoopError(
            f"editor {str(address)!r}: its pipeline is {name}; there are editors for {', '.join(EDITORS)}. "
            "docs/editors.md says how to add one."
        )
    module, own = EDITORS[name].split(".")
    editor: type[PipelineEditor] = getattr(import_module(f"components.editors.{module}"), own)
    told = settings or read_own_settings(folder) or read_editor_preset(editor.preset(index))
    if told.pipeline != name:
        raise EditLoopError(f"editor {str(address)!r}: its settings are for {told.pipeline}, its pipeline is {name}.")
    kind = getattr(diffusers, name)
    pipeline = kind.from_pretrained(folder, **editor.parts(folder), dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return editor(pipeline.to(device), told)


def find_editor(address: str) -> Path:
    """Where an editor's pipeline lies; a registered one is fetched and checked first. EditLoopError if nowhere."""
    if address.startswith("models:/"):
        from infra.registry import resolve_model

        registered = resolve_model(address)
        if registered is None:
            raise EditLoopError(f"{address}: the registry has no such version; `editloop stage promote` sets an alias.")
        return registered
    shipped = Path(str(files("components.editors"))) / "weights" / address
    folder = shipped if "/" not in address and shipped.is_dir() else Path(address)
    if not (folder / "model_index.json").is_file():
        raise EditLoopError(
            f"editor {address!r}: not a shipped editor and no diffusers pipeline folder (model_index.json is missing). "
            f"Give {FORMS}."
        )
    return folder
