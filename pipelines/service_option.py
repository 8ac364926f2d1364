"""Options that several commands share: whose services are used, where results go, the profile of a cluster's runs."""

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
DEFAULT_SERVICES = DEFAULT_OUT = Path("runs/demo")
ProfileName = Annotated[
    str | None,
    typer.Option("--profile", help="Deployment profile of a cluster's runs; by default the one in EDITLOOP_PROFILE."),
]
