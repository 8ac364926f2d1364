"""The option that names the folder whose services a command uses."""

from pathlib import Path
from typing import Annotated

import typer

Services = Annotated[
    Path,
    typer.Option(
        "--services",
        help="Folder of the demo or of `editloop up` whose services are used, where MLFLOW_TRACKING_URI is not set.",
    ),
]
DEFAULT_SERVICES = Path("runs/demo")
