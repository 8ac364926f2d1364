"""The command line. Heavy parts are imported when a command needs them, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from infra.errors import EditLoopError
from pipelines.benchmark_cli import benchmark
from pipelines.best_of_n_cli import best_of_n
from pipelines.campaign_cli import campaign_app
from pipelines.claims_cli import claims
from pipelines.comparison_cli import compare_judges
from pipelines.edit_score_cli import adapter, teacher_app
from pipelines.gate_cli import gate_app
from pipelines.input_options import input_file_or_folder
from pipelines.leaks_cli import leaks
from pipelines.lineage_cli import dataset_app, trace, verify
from pipelines.plan_cli import plan
from pipelines.ratings_cli import agreement, ratings_app
from pipelines.registry_cli import promote, registry, rollback
from pipelines.scoring_cli import score, serve
from pipelines.selection_cli import learning_curves, propose
from pipelines.surroundings import services_of

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""From experts' preferences to a better image editor.

    Begin with [bold]editloop demo[/bold]: it starts Label Studio and MLflow here, runs the whole loop small, and writes
    a report. A team's own edits go in by [bold]--edits FILE[/bold] (README, "Your own edits").

    The loop's pipelines can be run one at a time ([bold]run[/bold]), stage by stage ([bold]stage[/bold]), or
    compiled for a Kubeflow cluster ([bold]compile[/bold]), where [bold]reconcile[/bold] starts the next one when a
    campaign is complete. [bold]verify[/bold] follows a model back to the people it learnt from.""",
    rich_markup_mode="rich",
)

campaign_app.command()(propose)
campaign_app.command()(learning_curves)
app.add_typer(campaign_app, name="campaign")
app.add_typer(ratings_app, name="ratings")
app.add_typer(gate_app, name="gate")
app.command()(agreement)
app.add_typer(teacher_app, name="teacher")
app.command()(adapter)
app.command()(plan)
app.command()(verify)
app.command()(trace)
app.add_typer(dataset_app, name="dataset")
app.command()(compare_judges)
app.command()(claims)
app.command()(leaks)
app.command()(score)
app.command()(best_of_n)
app.command()(benchmark)
app.command()(serve)
app.command()(promote)
app.command()(rollback)
app.command()(registry)

Home = Annotated[Path, typer.Option("--out", help="Folder of the demo whose services are meant.")]
DEFAULT_OUT = Path("runs/demo")
Image = Annotated[
    str | None,
    typer.Option(help="Container image of the steps on a Kubeflow cluster, and of the TrainJobs that they start."),
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Everything is written below this folder; a next call goes on there.")] = (
        DEFAULT_OUT
    ),
    edits: Annotated[
        Path | None,
        typer.Option(callback=input_file_or_folder, help="An edits.jsonl or a folder of them, instead of scenes."),
    ] = None,
    experts: Annotated[
        Literal["simulated", "human"], typer.Option(help="human: wait for people; addresses and log-ins are printed.")
    ] = "simulated",
    seed: Annotated[int, typer.Option(help="The same seed gives the same dataset and the same figures.")] = 0,
    preset: Annotated[
        str, typer.Option(help="Size of the turn: demo, or smallest (a check that all parts work).")
    ] = "demo",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the services running at the end.")] = False,
) -> None:
    """Run the whole loop once on this machine, and write summary.json and report.html.

    Stopped or killed, it goes on at the first stage that is not done when it is called again.
    """
    from pipelines.demo import demo as run_demo
    from pipelines.settings import PRESETS

    if preset not in PRESETS:
        raise EditLoopError(f"--preset {preset}: no such preset; there are {', '.join(PRESETS)}.")
    run_demo(out, PRESETS[preset].model_copy(update={"seed": seed}), edits=edits, experts=experts, keep=keep)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def stage(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the stage; `list` lists them.")]
) -> None:
    """Run one stage: its inputs, outputs and parameters are options of their names.

    For example: editloop stage reward --dataset data/dataset --output data/model --epochs 12 --run my-run

    `editloop stage list` shows each stage with its options. MLflow records the step under the name given by --run.
    """
    from pipelines.stages import run_stage

    run_stage(name, context.args)


@app.command()
def run(
    pipeline: Annotated[str, typer.Argument(help="For example train-reward, curate-editor or improve-editor.")],
    argument: Annotated[
        list[str], typer.Option("--set", help="name=value of a pipeline parameter; may be repeated.")
    ] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Steps, cache and logs go below this folder.")] = DEFAULT_OUT,
    image: Image = None,
) -> None:
    """Run one pipeline, here or (with EDITLOOP_KFP_ENDPOINT set) on that Kubeflow Pipelines server.

    For example: editloop run improve-editor --set prompts_uri=/data/prompts --set heldout_uri=/data/heldout
    """
    from pipelines.backend import parse_arguments, starter

    with services_of(out):
        starter(out, image)(pipeline, parse_arguments(pipeline, argument))


@app.command(name="compile")
def compile_(
    out: Annotated[Path, typer.Option(help="Folder for the YAML files.")],
    image: Image = None,
) -> None:
    """Compile the pipelines to YAML for a Kubeflow Pipelines server.

    For example: editloop compile --out build/ours --image registry.example/editloop:2.1
    """
    from pipelines.compilation import compile_pipelines

    for path in compile_pipelines(out, image):
        print(path)


@app.command()
def reconcile(
    once: Annotated[bool, typer.Option("--once", help="Look once and end, as a CronJob does.")] = False,
    out: Annotated[Path, typer.Option(help="Steps, cache and logs of what is started here go below this folder.")] = (
        DEFAULT_OUT
    ),
    seconds: Annotated[float, typer.Option(help="Seconds between two looks without --once.")] = 30.0,
    image: Image = None,
) -> None:
    """Start the next pipeline for every campaign that is complete. Safe to run twice or in two places.

    With what arguments, was said when the campaign was opened: collect-preferences' `follow_up`.
    """
    import time

    from pipelines.backend import starter
    from pipelines.reconcile import reconcile as look_once

    with services_of(out):
        while True:
            look = look_once(starter(out, image), out)
            for one in look.waiting:
                print(f"waiting  {one.campaign.name} ({one.campaign.key}): {one.reason}")
            for campaign in look.edited:
                print(f"edited   {campaign.name} ({campaign.key}): `editloop campaign status` tells what changed")
            for word, keys in (("done", look.done), ("started", look.started)):
                for key in keys:
                    print(f"{word:<8} {key}")
            if once:
                return
            time.sleep(seconds)


@app.command()
def weights(
    model: Annotated[Literal["editor", "reward", "score"], typer.Argument(help="Which of the three tiny bases.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write; by default where the shipped one lies.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps; by default those of the shipped one.")] = None,
) -> None:
    """Make a tiny base anew, as the shipped one was made: the editor, EditReward or EditScore (minutes on a core)."""
    from importlib import import_module

    import components

    rooms = {"editor": "editors", "reward": "reward", "score": "edit_score"}
    room, name = rooms[model], f"tiny-{model}"
    target = output or Path(str(components.__file__)).parent / room / "weights" / name
    options = {} if steps is None else {"steps": steps}
    for key, value in import_module(f"components.{room}.tiny").train(target, **options).items():
        print(f"{key:<28} {value:g}")


@app.command()
def up(out: Home = DEFAULT_OUT) -> None:
    """Start Label Studio and MLflow here, and print the variables by which stages find them."""
    import shlex

    from infra.services import start_services
    from pipelines.surroundings import surroundings

    services = start_services(out.absolute() / "services")
    for key, value in (services.environment | surroundings(out.absolute())).items():
        print(f"export {key}={shlex.quote(value)}")


@app.command()
def down(out: Home = DEFAULT_OUT) -> None:
    """Stop the services that run for a folder."""
    from infra.services import stop_services

    stopped = stop_services(out.absolute() / "services")
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


@app.command()
def status(out: Home = DEFAULT_OUT) -> None:
    """Show the services of a folder, and its latest steps where MLflow answers."""
    from infra.services import services_status

    found = services_status(out.absolute() / "services")
    for one in found:
        print(f"{one.service.name:<14} {one.state:<14} {one.service.url}")
    if not found:
        print(f"no services were started for {out}; `editloop up` or `editloop demo` starts them")
        return
    if any(one.service.name == "mlflow" and one.state == "running" for one in found):
        from infra.tracking import find_runs
        from pipelines.stages import STAGES

        with services_of(out):
            for name in STAGES:
                for latest in find_runs(stage=name, limit=1):
                    print(f"{name:<14} {latest.info.status:<14} {latest.data.tags.get('editloop.pipeline_run')}")


@app.command()
def doctor(out: Home = DEFAULT_OUT) -> None:
    """Check what this machine needs for the loop; exit with 1 where something is missing."""
    from infra.doctor import doctor as examine

    checks = examine(out.absolute() / "services")
    for check in checks:
        print(f"{'✓' if check.ok else '✗'} {check.name:<22} {check.found}" + ("" if check.ok else f"   {check.advice}"))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def main() -> Any:
    """Entry point: an error that a user can mend is one message, an interrupt is 130."""
    try:
        return app()
    except EditLoopError as error:
        print(f"editloop: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("editloop: stopped; the same call goes on where it was", file=sys.stderr)
        return 130
