"""The command line. Heavy parts are imported when a command needs them, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from editloop.errors import EditLoopError
from pipelines.benchmark_cli import benchmark_command
from pipelines.best_of_n_cli import best_of_n_command
from pipelines.campaign_cli import campaign_app
from pipelines.claims_cli import claims_command
from pipelines.comparison_cli import compare_judges_command
from pipelines.edit_score_cli import adapter_command, teacher_app
from pipelines.environment import services_of
from pipelines.gate_cli import gate_app
from pipelines.input_options import input_file_or_folder
from pipelines.leaks_cli import leaks_command
from pipelines.lineage_cli import dataset_app, trace_command, verify_command
from pipelines.plan_cli import plan_command
from pipelines.ratings_cli import agreement_command, ratings_app
from pipelines.registry_cli import promote_command, registry_command, rollback_command
from pipelines.scoring_cli import score_command, serve_command
from pipelines.selection_cli import learning_curves_command, propose_command

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

campaign_app.command("propose")(propose_command)
campaign_app.command("learning-curves")(learning_curves_command)
app.add_typer(campaign_app, name="campaign")
app.add_typer(ratings_app, name="ratings")
app.add_typer(gate_app, name="gate")
app.command("agreement")(agreement_command)
app.add_typer(teacher_app, name="teacher")
app.command("adapter")(adapter_command)
app.command("plan")(plan_command)
app.command("verify")(verify_command)
app.command("trace")(trace_command)
app.add_typer(dataset_app, name="dataset")
app.command("compare-judges")(compare_judges_command)
app.command("claims")(claims_command)
app.command("leaks")(leaks_command)
app.command("score")(score_command)
app.command("best-of-n")(best_of_n_command)
app.command("benchmark")(benchmark_command)
app.command("serve")(serve_command)
app.command("promote")(promote_command)
app.command("rollback")(rollback_command)
app.command("registry")(registry_command)

Home = Annotated[Path, typer.Option("--out", help="Folder of the demo whose services are meant.")]
DEFAULT_OUT = Path("runs/demo")
Image = Annotated[
    str | None,
    typer.Option(help="Container image of the steps on a Kubeflow cluster, and of the TrainJobs that they start."),
]


@app.command("demo")
def demo_command(
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
    from pipelines.demo import run_demo
    from pipelines.settings import PRESETS

    if preset not in PRESETS:
        raise EditLoopError(f"--preset {preset}: no such preset; there are {', '.join(PRESETS)}.")
    run_demo(out, PRESETS[preset].model_copy(update={"seed": seed}), edits=edits, experts=experts, keep=keep)


@app.command("stage", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def stage_command(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the stage; `list` lists them.")]
) -> None:
    """Run one stage: its inputs, outputs and parameters are options of their names.

    For example: editloop stage reward --dataset data/dataset --output data/model --epochs 12 --run my-run

    `editloop stage list` shows each stage with its options. MLflow records the step under the name given by --run.
    """
    from pipelines.stages import run_stage

    run_stage(name, context.args)


@app.command("run")
def run_command(
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
    from pipelines.backend import make_starter, parse_arguments

    with services_of(out):
        make_starter(out, image)(pipeline, parse_arguments(pipeline, argument))


@app.command("compile")
def compile_command(
    out: Annotated[Path, typer.Option(help="Folder for the YAML files.")],
    image: Image = None,
) -> None:
    """Compile the pipelines to YAML for a Kubeflow Pipelines server.

    For example: editloop compile --out build/ours --image registry.example/editloop:2.1
    """
    from pipelines.compilation import compile_pipelines

    for path in compile_pipelines(out, image):
        print(path)


@app.command("reconcile")
def reconcile_command(
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

    from pipelines.backend import make_starter
    from pipelines.reconcile import reconcile as look_once

    with services_of(out):
        while True:
            reconciled = look_once(make_starter(out, image), out)
            for pending in reconciled.waiting:
                print(f"waiting  {pending.campaign.name} ({pending.campaign.key}): {pending.reason}")
            for campaign in reconciled.edited:
                print(f"edited   {campaign.name} ({campaign.key}): `editloop campaign status` tells what changed")
            for word, keys in (("done", reconciled.done), ("started", reconciled.started)):
                for key in keys:
                    print(f"{word:<8} {key}")
            if once:
                return
            time.sleep(seconds)


@app.command("weights")
def weights_command(
    model: Annotated[Literal["editor", "reward", "score"], typer.Argument(help="Which of the three tiny bases.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write; by default where the shipped one lies.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps; by default those of the shipped one.")] = None,
) -> None:
    """Make a tiny base anew, as the shipped one was made: the editor, EditReward or EditScore (minutes on a core)."""
    import editloop.models
    from editloop.studies.tiny_models.edit_reward import pretrain_tiny_reward
    from editloop.studies.tiny_models.edit_score import pretrain_tiny_score
    from editloop.studies.tiny_models.editor import pretrain_tiny_editor

    bases = {
        "editor": ("editors", pretrain_tiny_editor),
        "reward": ("edit_reward", pretrain_tiny_reward),
        "score": ("edit_score", pretrain_tiny_score),
    }
    package, pretrain = bases[model]
    target = output or Path(str(editloop.models.__file__)).parent / package / "weights" / f"tiny-{model}"
    options = {} if steps is None else {"steps": steps}
    for key, value in pretrain(target, **options).items():
        print(f"{key:<28} {value:g}")


@app.command("up")
def up_command(out: Home = DEFAULT_OUT) -> None:
    """Start Label Studio and MLflow here, and print the variables by which stages find them."""
    import shlex

    from infra.services import start_services
    from pipelines.environment import local_environment

    services = start_services(out.absolute() / "services")
    for key, value in (services.environment | local_environment(out.absolute())).items():
        print(f"export {key}={shlex.quote(value)}")


@app.command("down")
def down_command(out: Home = DEFAULT_OUT) -> None:
    """Stop the services that run for a folder."""
    from infra.services import stop_services

    stopped = stop_services(out.absolute() / "services")
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


@app.command("status")
def status_command(out: Home = DEFAULT_OUT) -> None:
    """Show the services of a folder, and its latest steps where MLflow answers."""
    from infra.services import services_status

    statuses = services_status(out.absolute() / "services")
    for status in statuses:
        print(f"{status.service.name:<14} {status.state:<14} {status.service.url}")
    if not statuses:
        print(f"no services were started for {out}; `editloop up` or `editloop demo` starts them")
        return
    if any(status.service.name == "mlflow" and status.state == "running" for status in statuses):
        from editloop.lineage.tracking import find_runs
        from pipelines.stages import STAGES

        with services_of(out):
            for name in STAGES:
                for latest in find_runs(stage=name, limit=1):
                    print(f"{name:<14} {latest.info.status:<14} {latest.data.tags.get('editloop.pipeline_run')}")


@app.command("doctor")
def doctor_command(out: Home = DEFAULT_OUT) -> None:
    """Check what this machine needs for the loop; exit with 1 where something is missing."""
    from infra.doctor import check_machine as examine

    checks = examine(out.absolute() / "services")
    for check in checks:
        print(f"{'✓' if check.ok else '✗'} {check.name:<22} {check.state}" + ("" if check.ok else f"   {check.advice}"))
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
