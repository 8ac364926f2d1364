"""`editloop judge add`: make a judge's folder of released weights and their base."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from editloop.errors import EditLoopError
from pipelines.hub_options import BaseModelName, Datasets, Evidence, HubFolder, License
from pipelines.input_options import input_file, input_file_or_folder, plain_folder

W = TypeVar("W")

judge_app = typer.Typer(no_args_is_help=True, help="Judges: from released weights, and for the Hugging Face hub.")
add_app = typer.Typer(no_args_is_help=True, help="Make a judge's folder of released weights and their base.")
judge_app.add_typer(add_app, name="add")


class PositionsOption(StrEnum):
    """Values of --positions."""

    FLAT = "flat"
    MROPE = "mrope"


Base = Annotated[
    Path,
    typer.Option(
        callback=plain_folder,
        help="Folder of the base that it was trained on: configuration, tokenizer, image processor, chat template.",
    ),
]
Out = Annotated[Path, typer.Option(help="The model folder to write: what every command takes as --model.")]
ReferenceRepo = Annotated[
    Path | None,
    typer.Option(
        callback=plain_folder,
        help="A checkout of the authors' repository, to take the wording from. Its files are parsed, never run.",
    ),
]


@add_app.command("editreward")
def add_editreward_command(
    weights: Annotated[
        Path,
        typer.Option(callback=input_file_or_folder, help="The release: model.safetensors, or the folder it lies in."),
    ],
    base: Base,
    out: Out,
    wording: Annotated[
        Path | None,
        typer.Option(
            callback=input_file,
            help="YAML or JSON with the rubrics that it was trained with: rubrics: {if: ..., vq: ...}, each with "
            "{instruction}; and opening, if it is not that of the base's chat template.",
        ),
    ] = None,
    reference_repo: ReferenceRepo = None,
    positions: Annotated[
        PositionsOption | None,
        typer.Option(help="How an image's tokens are numbered; by default as the family's release was trained."),
    ] = None,
) -> None:
    """Make a reward model's folder of released EditReward weights, as every command opens it.

    Every key and shape is checked before anything is written. Weights keep their types and are copied file by file.

    For example: editloop judge add editreward --weights models/EditReward-MiMo-VL-7B --base models/MiMo-VL-7B-SFT-2508
    --reference-repo EditReward --out models/editreward-mimo
    """
    from editloop.models.edit_reward.released import add_editreward
    from editloop.models.edit_reward.wording import read_reference_repository, read_wording

    released_wording = _wording(wording, reference_repo, read_wording, read_reference_repository)
    settings = add_editreward(
        weights, base, out, wording=released_wording, positions=positions.value if positions else None
    )
    print(f"positions {settings.positions}, {settings.min_pixels} to {settings.max_pixels} pixels a picture")
    _print_wording(settings.wording, settings.wording_sha256)
    print(out)


@add_app.command("editscore")
def add_editscore_command(
    weights: Annotated[
        Path,
        typer.Option(
            callback=plain_folder, help="The release: an adapter's folder as PEFT wrote it, or one of merged weights."
        ),
    ],
    base: Base,
    out: Out,
    wording: Annotated[
        Path | None,
        typer.Option(
            callback=input_file,
            help="YAML or JSON with the questions that it was trained with: sc, with {instruction} and {top}, and pq; "
            "and system, if it is not that of the base's chat template.",
        ),
    ] = None,
    reference_repo: ReferenceRepo = None,
    base_name: Annotated[
        str | None, typer.Option(help="What model the base's folder holds, if its own name does not tell.")
    ] = None,
    min_pixels: Annotated[
        int | None, typer.Option(min=1, help="Least pixels of a picture; by default the base's processor's.")
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Most pixels of a picture; by default the base's processor's: its own resolution."),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(min=0.1, help="By default that of the base's generation settings; 1 is none, as in vLLM's path."),
    ] = None,
) -> None:
    """Make an EditScore model's folder of a released adapter or of merged weights, as every command opens it.

    For example: editloop judge add editscore --weights models/EditScore-7B --base models/Qwen2.5-VL-7B-Instruct
    --reference-repo EditScore --out models/editscore-7b
    """
    from editloop.models.edit_score.released import ReleaseSettings, add_editscore
    from editloop.models.edit_score.wording import read_score_repository, read_score_wording

    settings = add_editscore(
        weights,
        base,
        out,
        wording=_wording(wording, reference_repo, read_score_wording, read_score_repository),
        base_name=base_name,
        changes=ReleaseSettings(min_pixels, max_pixels, repetition_penalty),
    )
    mark = repr(settings.mark(1)) if settings.picture_mark else "nothing"
    print(f"{mark} before a picture, {settings.min_pixels} to {settings.max_pixels} pixels a picture")
    print(
        f"{settings.passes} passes, temperature {settings.temperature:g}, top_p {settings.top_p:g}, top_k "
        f"{settings.top_k}, repetition_penalty {settings.repetition_penalty:g}, seed {settings.seed}"
    )
    _print_wording(settings.wording, settings.wording_sha256)
    print(out)


@judge_app.command("export")
def export_judge_command(
    model: Annotated[str, typer.Argument(help="A reward model's folder, or its address in the registry.")],
    evidence: Evidence,
    out: HubFolder,
    license_name: License = "",
    base_model: BaseModelName = "",
    dataset: Datasets = None,
) -> None:
    """Write a reward model as a folder for the Hugging Face hub, with a card of its verdict and its figures.

    The card has the hub's metadata. It asks for what is not given; nothing is sent to the hub.

    For example: editloop judge export runs/demo/reward --evidence runs/demo/benchmark --out hub/our-reward
    """
    from editloop.lineage.hub_model import HubChoices, export_hub_model
    from editloop.scoring.opening import find_local

    found = find_local(model)
    choices = HubChoices(license_name, base_model, dataset or ())
    print(f"verdict {export_hub_model(found.folder, found.kind, evidence, out, choices)}")
    print(out)


def _wording(
    file: Path | None, repository: Path | None, read_file: Callable[[Path], W], read_repository: Callable[[Path], W]
) -> W | None:
    """Return the wording of a release from where the user says that it is; None where nothing is said."""
    if file is not None and repository is not None:
        raise EditLoopError("--wording and --reference-repo: both give the wording. Give one of them.")
    if file is not None:
        return read_file(file)
    return None if repository is None else read_repository(repository)


def _print_wording(wording: str, sha256: str) -> None:
    note = "" if wording == "trained" else " (EditLoop's own, not that of the release)"
    print(f"wording {sha256[:12]}{note}")
