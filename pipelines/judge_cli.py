"""`editloop judge add`: make a judge's folder of released weights and their base."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from editloop.errors import EditLoopError
from pipelines.input_options import input_file, input_file_or_folder, plain_folder

judge_app = typer.Typer(no_args_is_help=True, help="Judges from released weights.")
add_app = typer.Typer(no_args_is_help=True, help="Make a judge's folder of released weights and their base.")
judge_app.add_typer(add_app, name="add")


class PositionsOption(StrEnum):
    """Values of --positions."""

    FLAT = "flat"
    MROPE = "mrope"


@add_app.command("editreward")
def add_editreward_command(
    weights: Annotated[
        Path,
        typer.Option(callback=input_file_or_folder, help="The release: model.safetensors, or the folder it lies in."),
    ],
    base: Annotated[
        Path,
        typer.Option(
            callback=plain_folder,
            help="Folder of the base that it was trained on: configuration, tokenizer, image processor, chat template.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The model folder to write: what every command takes as --model.")],
    wording: Annotated[
        Path | None,
        typer.Option(
            callback=input_file,
            help="YAML or JSON with the rubrics that it was trained with: rubrics: {if: ..., vq: ...}, each with "
            "{instruction}; and opening, if it is not that of the base's chat template.",
        ),
    ] = None,
    reference_repo: Annotated[
        Path | None,
        typer.Option(
            callback=plain_folder,
            help="A checkout of the authors' repository, to take the rubrics from. Its files are parsed, never run.",
        ),
    ] = None,
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
    if wording is not None and reference_repo is not None:
        raise EditLoopError("--wording and --reference-repo: both give the rubrics. Give one of them.")
    from editloop.models.edit_reward.released import add_editreward
    from editloop.models.edit_reward.wording import read_reference_repository, read_wording

    released_wording = (
        read_wording(wording)
        if wording is not None
        else read_reference_repository(reference_repo)
        if reference_repo is not None
        else None
    )
    settings = add_editreward(
        weights, base, out, wording=released_wording, positions=positions.value if positions else None
    )
    note = "" if settings.wording == "trained" else " (EditLoop's own, not that of the release)"
    print(f"positions {settings.positions}, {settings.min_pixels} to {settings.max_pixels} pixels a picture")
    print(f"wording {settings.wording_sha256[:12]}{note}")
    print(out)
