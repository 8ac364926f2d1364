"""Options of the commands that write models for the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.input_options import input_folder

Evidence = Annotated[
    Path,
    typer.Option(
        callback=input_folder("benchmark"), help="Folder that stage benchmark or editor_eval wrote for this model."
    ),
]
HubFolder = Annotated[Path, typer.Option(help="Folder to write; its name becomes the model's.")]
License = Annotated[str, typer.Option("--license", help="The license by its name on the hub, such as apache-2.0.")]
BaseModelName = Annotated[str, typer.Option(help="The base's name on the hub, OWNER/NAME.")]
Datasets = Annotated[list[str] | None, typer.Option(help="A dataset's name on the hub, OWNER/NAME; may be repeated.")]
