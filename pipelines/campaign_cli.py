"""`editloop campaign`: what a campaign lead does from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.surroundings import services_of

campaign_app = typer.Typer(no_args_is_help=True, help="Open, follow, judge and close an annotation campaign.")

Home = Annotated[
    Path,
    typer.Option(
        "--services",
        help="Folder of the demo or `editloop up` whose services are meant, where the environment names none.",
    ),
]
DEFAULT_HOME = Path("runs/demo")


@campaign_app.command(name="open")
def open_(
    file: Annotated[Path, typer.Argument(help="The campaign's YAML file; docs/campaign.md explains every key.")],
    out: Annotated[Path, typer.Option(help="Folder for the campaign's files.")],
    follow_up: Annotated[
        str, typer.Option(help="Arguments of the pipelines that start when the campaign has closed, as JSON.")
    ] = "{}",
    services: Home = DEFAULT_HOME,
) -> None:
    """Open a campaign in Label Studio, or bring an opened one to what its file says.

    Safe to repeat: nothing is asked twice, and an import that was cut off goes on. `editloop reconcile` starts the
    training when the campaign has closed, as it does for a campaign that a pipeline opened.
    """
    from annotation.campaign import read_campaign
    from annotation.campaign_settings import read_campaign_settings, stage_parameters
    from components.step import run_step

    settings, candidates = read_campaign_settings(file)
    candidates, output = candidates.absolute(), out.absolute()
    with services_of(services):
        run_step(
            "annotate",
            pipeline_run=f"campaign-{settings.name}",
            inputs={"candidates": candidates},
            outputs={"output": output},
            parameters=stage_parameters(settings),
            tags={"uri.candidates": str(candidates), "uri.output": str(output), "follow_up": follow_up},
        )
        opened = read_campaign(output)
    print(f"campaign  {opened.name} ({opened.key})")
    print(f"pages     {opened.pages}, of which {opened.tasks} are tasks and the others repeats and gold")
    print(f"answers   {opened.wanted} wanted from {', '.join(opened.annotators)}")
    print(f"address   {opened.url}")
