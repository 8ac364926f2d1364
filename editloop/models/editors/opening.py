"""Open an editor from its address: a pipeline's folder, a shipped name, or a registered version."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as distributed
from accelerate import init_empty_weights

from editloop.content import MANIFEST, write_manifest
from editloop.errors import EditLoopError
from editloop.models.backbones.checkpoints import one_line
from editloop.models.backbones.config_values import check_config_values
from editloop.models.backbones.placement import check_model_folder, placement
from editloop.models.backbones.spreading import ParameterSpreader, Spread
from editloop.models.backbones.weight_files import check_keys, check_weight_files, read_tensors, survey_weights
from editloop.models.editors.network_files import PartReader
from editloop.models.editors.on_demand import OnDemandParts
from editloop.models.editors.pipeline_editor import CODEC, NETWORK, PipelineEditor
from editloop.models.editors.settings import EditorSettings, read_editor_preset, read_own_settings
from editloop.models.editors.step1x_files import released_files, released_index
from editloop.plugins import load_plugin, plugin_names
from editloop.settings_file import shorten
from editloop.text_file import file_bytes, is_file_name

EDITORS = {
    "FluxKontextPipeline": "kontext.KontextEditor",
    "QwenImageEditPlusPipeline": "qwen_edit_plus.QwenEditPlusEditor",
    "Flux2Pipeline": "flux2_dev.Flux2DevEditor",
    "Flux2KleinPipeline": "flux2_klein.Flux2KleinEditor",
    "OmniGen2Pipeline": "omnigen2.OmniGen2Editor",
    "Step1XEditPipeline": "step1x.Step1XEditor",
    "Step1XEditPipelineV1P2": "step1x.Step1XEditorV1P2",
}
"""By the pipeline class in model_index.json: module and class of the editor, below editloop.models.editors."""
LIBRARIES = ("diffusers", "transformers")
"""Whose modules are read part by part. An editor reads others in its `parts`."""
DAMAGE = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""What reading damaged files raises. Not among them: a RuntimeError, as that of a GPU whose memory is full."""
FORMS = "a folder written by save_pretrained, the name of a shipped editor (`tiny-editor`), or models:/NAME@ALIAS"
"""The forms of an address, for error messages."""


def open_editor(
    address: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    encoder_dtype: torch.dtype | None = None,
    on_demand: bool = False,
    spread: Spread | None = None,
    settings: EditorSettings | None = None,
) -> PipelineEditor:
    """Open the editor behind an address.

    Weights are read straight to the device, tensor by tensor, in the type they are used in.

    Args:
        address: A pipeline's folder, a shipped name, or `models:/NAME@ALIAS` or `models:/NAME/VERSION` in the registry.
        device: None takes the first GPU, or the CPU where there is none.
        dtype: Type of the network's weights. None takes bfloat16 on a GPU and float32 on a CPU.
        encoder_dtype: Type of the weights of the text encoders and the codec. None takes that of the network.
        on_demand: Read text encoders and codec where they are first used, and have them on the device only while they
            are used.
        spread: Where each rank of a job keeps its part of the network's weights, which no rank then has whole; None:
            this process has them whole.
        settings: Used instead of the settings in the folder or of the preset of its pipeline's class.

    Returns:
        The editor, on its device.

    Raises:
        EditLoopError: There is no pipeline at the address, its class has no editor, or the settings are for another
            class.

    Examples:
        >>> import editloop
        >>> editor = editloop.open_editor("tiny-editor", device="cpu")
        >>> editor.settings.pipeline
        'FluxKontextPipeline'
    """
    kind = _kind_of(str(address))
    if (kind.folder / MANIFEST).is_file():
        check_model_folder(kind.folder)
    chosen_settings = settings or kind.settings
    if chosen_settings.pipeline != kind.pipeline.__name__:
        raise EditLoopError(
            f"editor {str(address)!r}: its settings are for {chosen_settings.pipeline}, its pipeline is "
            f"{kind.pipeline.__name__}."
        )
    target, network_dtype = placement(device, dtype)
    frozen_dtype = encoder_dtype or network_dtype
    parts = kind.editor.parts(kind.folder)
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            part.to(target, network_dtype if name == NETWORK else frozen_dtype)  # these come as they are stored
    large = [
        name for name in (NETWORK, CODEC, *kind.editor.text_encoders) if name not in parts and kind.is_readable(name)
    ]
    if spread and (NETWORK not in large or NETWORK in kind.readers):
        raise EditLoopError(
            f"editor {str(address)!r}: {kind.pipeline.__name__} has a network of its own, whose weights are not spread "
            "over ranks. Take zero_stage 0 to 2."
        )
    readers: dict[str, Callable[[], torch.nn.Module]] = {
        name: partial(_read_part, kind, name, frozen_dtype, torch.device("cpu"))
        for name in large
        if on_demand and name != NETWORK
    }
    for name in large:
        if name == NETWORK and spread:
            parts[name] = _read_spread_network(kind, network_dtype, spread)
        elif name not in readers:
            parts[name] = _read_part(kind, name, network_dtype if name == NETWORK else frozen_dtype, target)
        else:
            parts[name] = _outline_part(kind, name) if name == CODEC else None  # a pipeline asks how a codec is built
    # diffusers would compare these with their published classes, which cannot be imported here
    uncompared = {name: part for name, part in parts.items() if getattr(kind.part_class(name), "is_dummy", False)}
    parts |= dict.fromkeys(uncompared)
    pipeline = kind.pipeline.from_pretrained(
        kind.folder, **parts, dtype=frozen_dtype, local_files_only=True, use_safetensors=True
    )
    pipeline.register_modules(**uncompared)
    pipeline.set_progress_bar_config(disable=True)
    for name, part in pipeline.components.items():
        if name not in readers and isinstance(part, torch.nn.Module) and not (name == NETWORK and spread):
            part.to(target)
    return kind.editor(pipeline, chosen_settings, OnDemandParts(pipeline, readers, target))


def _read_part(kind: "_Kind", name: str, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """Read one of the pipeline's modules, without a second copy of its weights in main memory."""
    if name in kind.readers:
        return kind.readers[name].read(dtype, device)
    placed = {} if device.type == "cpu" else {"device_map": {"": device}}
    part: torch.nn.Module = kind.part_class(name).from_pretrained(
        kind.folder / name, dtype=dtype, local_files_only=True, use_safetensors=True, **placed
    )
    return part


def _read_spread_network(kind: "_Kind", dtype: torch.dtype, spread: Spread) -> torch.nn.Module:
    """Read the network with each rank keeping its part of each weight. Rank 0 reads the files, a tensor at a time."""
    network_class = kind.part_class(NETWORK)
    with init_empty_weights(include_buffers=False):  # positions are computed, not read
        network: torch.nn.Module = network_class.from_config(
            network_class.load_config(kind.folder / NETWORK, local_files_only=True)
        )
    tensors = survey_weights(kind.folder / NETWORK)
    check_keys(tensors, network.state_dict(), str(kind.folder / NETWORK))
    spreader, reads = ParameterSpreader(spread), distributed.get_rank() == 0
    for name, parameter in network.named_parameters():
        value = next(read_tensors({name: tensors[name]}))[1] if reads else None
        spreader.place(parameter, value, dtype)
    return network.eval()


def _outline_part(kind: "_Kind", name: str) -> torch.nn.Module:
    """Return the network or the codec on the meta device."""
    if name in kind.readers:
        return kind.readers[name].outline()
    part_class = kind.part_class(name)
    with torch.device("meta"):
        outline: torch.nn.Module = part_class.from_config(
            part_class.load_config(kind.folder / name, local_files_only=True)
        )
    return outline


def add_editor(folder: Path) -> str:
    """Give a downloaded pipeline's folder its manifest, with which it is compared whenever it is opened.

    Everything is checked before: the parts' files, the types and values of all weights, and that the network can be
    built. Nothing is copied.

    Args:
        folder: The folder. A manifest that is there is replaced.

    Returns:
        The content address of the folder.

    Raises:
        EditLoopError: There is no pipeline that an editor knows, a file of it is broken, weights are quantised, NaN or
            infinite, or the folder cannot be written to.
    """
    outline = outline_editor(folder)
    for path in (*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*/*.safetensors"))):
        for _ in read_tensors(survey_weights(path)):
            pass  # each is looked at and let go
    try:
        return write_manifest(folder, {"pipeline": outline.settings.pipeline})
    except OSError as error:
        raise EditLoopError(
            f"{folder / MANIFEST}: cannot be written ({error.strerror}). The manifest lies in the editor's folder; "
            "make it writable, or copy it."
        ) from None


def outline_editor(address: str | Path) -> PipelineEditor:
    """Open the editor behind an address without its large weights and without text encoders.

    The network and a codec of diffusers are on the meta device, so that an editor of any size takes almost no memory.
    It knows its layers and sizes but cannot edit.

    Args:
        address: As in `open_editor`.

    Raises:
        EditLoopError: There is no pipeline at the address, or its class has no editor.
    """
    import diffusers

    kind = _kind_of(str(address))
    parts: dict[str, Any] = dict.fromkeys(name for name, value in kind.parts.items() if isinstance(value, list))
    with _readable(kind.folder):
        for name in (NETWORK, CODEC):
            if kind.is_readable(name):
                parts[name] = _outline_part(kind, name)
        parts |= kind.editor.parts(kind.folder)
        if parts["scheduler"] is None:
            parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
                kind.folder / "scheduler", local_files_only=True
            )
        return kind.editor(kind.pipeline(**parts), kind.settings)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Say in one line what is wrong with a folder: diffusers and transformers let all through that a file causes.

    Raises:
        EditLoopError: The block raised one of DAMAGE.
    """
    try:
        yield
    except DAMAGE as error:
        raise EditLoopError(
            f"editor {folder}: a part cannot be read ({type(error).__name__}: {shorten(one_line(error))}). Take the "
            "folder that was published."
        ) from error


class _Kind(NamedTuple):
    """What is known of an editor before its weights are read."""

    folder: Path
    parts: dict[str, Any]
    """Content of model_index.json: the pipeline's parts, each with its library and class."""
    pipeline: Any
    """The diffusers pipeline class."""
    editor: type[PipelineEditor]
    settings: EditorSettings
    """The settings in the folder, or else the preset of the pipeline's class."""
    readers: dict[str, PartReader]
    """How modules are read whose class is none of diffusers or transformers."""

    def is_readable(self, name: str) -> bool:
        """Whether a module of the pipeline can be read by itself."""
        return name in self.readers or bool(self.part_class(name))

    def part_class(self, name: str) -> Any:
        """Return the class of one of the pipeline's modules, or None where it is none of diffusers or transformers."""
        library, class_name = self.parts.get(name) or ("", "")
        return getattr(import_module(library), class_name, None) if library in LIBRARIES else None


def _kind_of(address: str) -> _Kind:
    import diffusers

    folder = find_editor(address)
    index = _read_index(folder)
    name = str(index.get("_class_name"))
    editor = _editor_class(name)
    if editor is None:
        names = (*EDITORS, *plugin_names("editloop.editors"))
        raise EditLoopError(
            f"editor {address!r}: its pipeline is {name}; there are editors for {', '.join(names)}. "
            "docs/editors.md says how to add one."
        )
    with _readable(folder):
        settings = read_own_settings(folder) or read_editor_preset(editor.preset(index))
        pipeline = getattr(diffusers, name, None) or editor.pipeline_class()
        return _Kind(folder, index, pipeline, editor, settings, editor.readers(folder))


def _read_index(folder: Path) -> dict[str, Any]:
    """Return the content of model_index.json, after a check of each part's files. No weights are read.

    Step1X-Edit's folder of single files has none: it is made up.
    """
    path = folder / "model_index.json"
    try:
        index = released_index(folder) or json.loads(file_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: cannot be read as JSON ({error}). Take the one that was published.") from None
    if not isinstance(index, dict):
        raise EditLoopError(f"{path}: no pipeline's parts by name. Take the one that was published.")
    for part, value in sorted((name, value) for name, value in index.items() if isinstance(value, list)):
        if not is_file_name(part):
            raise EditLoopError(
                f"{path}: names a part {part!r}; a part is a folder there. Take the one that was published."
            )
        if value and (len(value) != 2 or not all(isinstance(name, str | None) for name in value)):  # [] where made up
            raise EditLoopError(
                f"{path}: {part} is {shorten(value)}; a part has a library and a class. Take the one that was "
                "published."
            )
        if (folder / part).is_dir():
            check_weight_files(folder / part)
            if (folder / part / "config.json").exists():
                check_config_values(folder / part / "config.json")
    return index


def _editor_class(pipeline: str) -> type[PipelineEditor] | None:
    """The editor of a pipeline's class: one that ships, or one that another package declares; None without either."""
    if pipeline in EDITORS:
        module, class_name = EDITORS[pipeline].split(".")
        shipped: type[PipelineEditor] = getattr(import_module(f"editloop.models.editors.{module}"), class_name)
        return shipped
    declared: type[PipelineEditor] | None = load_plugin("editloop.editors", pipeline)
    return declared


def find_editor(address: str) -> Path:
    """Return the folder of an editor's pipeline. A registered version is fetched and checked first.

    Args:
        address: A pipeline's folder, a shipped name, or `models:/NAME@ALIAS` or `models:/NAME/VERSION` in the registry.

    Raises:
        EditLoopError: There is no pipeline at the address.
    """
    if address.startswith("models:/"):
        from editloop.lineage.registry import require_model

        return require_model(address)
    shipped = Path(__file__).with_name("weights") / address
    folder = shipped if "/" not in address and shipped.is_dir() else Path(address)
    if not (folder / "model_index.json").is_file() and released_files(folder) is None:
        raise EditLoopError(
            f"editor {address!r}: not a shipped editor and no diffusers pipeline folder (model_index.json is missing). "
            f"Give {FORMS}."
        )
    return folder
