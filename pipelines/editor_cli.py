"""`editloop editor add` and `export`: a downloaded editor's manifest, and a tuned editor for the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.hub_options import BaseModelName, Datasets, Evidence, HubFolder, License
from pipelines.input_options import input_folder, plain_folder

editor_app = typer.Typer(no_args_is_help=True, help="Editors: from released weights, and for the Hugging Face hub.")


@editor_app.command("add")
def add_editor_command(
    folder: Annotated[
        Path, typer.Argument(callback=plain_folder, help="The pipeline's folder, with its model_index.json.")
    ],
) -> None:
    """Check a downloaded editor's folder, and write its manifest into it. Nothing is copied.

    Files, types and values of all weights are checked. From then on the folder is compared with the manifest whenever
    it is opened. Call it again after a change of its editor.json.

    For example: editloop editor add models/FLUX.1-Kontext-dev
    """
    from editloop.models.editors.opening import add_editor

    print(f"content {add_editor(folder)}")
    print(folder)


@editor_app.command("export")
def export_editor_command(
    model: Annotated[
        Path,
        typer.Argument(callback=input_folder("editor"), help="Folder that editor_sft, editor_dpo or editor_rl wrote."),
    ],
    evidence: Evidence,
    out: HubFolder,
    license_name: License = "",
    base_model: BaseModelName = "",
    dataset: Datasets = None,
) -> None:
    """Write a tuned editor as a folder for the Hugging Face hub, with a card of its verdict and its figures.

    `DiffusionPipeline.from_pretrained` reads the folder. The card has the hub's metadata, and asks for what is not
    given; nothing is sent to the hub.

    For example: editloop editor export runs/demo/tuned --evidence runs/demo/evaluation --out hub/our-editor
    """
    from editloop.lineage.hub_model import EDITOR, HubChoices, export_hub_model

    choices = HubChoices(license_name, base_model, dataset or ())
    print(f"verdict {export_hub_model(model, EDITOR, evidence, out, choices)}")
    print(out)
