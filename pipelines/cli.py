"""The command line `editloop`. Heavy modules are imported when a command needs them, so that `--help` is fast."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from editloop.errors import EditLoopError, there_are
from editloop.lineage.mlflow_errors import mlflow_errors_in_one_line
from editloop.logs import log_to_stderr
from pipelines.backup_cli import backup_command, restore_command
from pipelines.benchmark_cli import benchmark_command
from pipelines.benchmark_editor_cli import benchmark_editor_command
from pipelines.best_of_n_cli import best_of_n_command
from pipelines.campaign_cli import campaign_app
from pipelines.claims_cli import claims_command
from pipelines.cluster_cli import cluster_app
from pipelines.comparison_cli import compare_judges_command
from pipelines.edit_score_cli import teacher_app
from pipelines.editor_cli import editor_app
from pipelines.edits_cli import edits_app
from pipelines.environment import services_of
from pipelines.gate_cli import gate_app
from pipelines.input_options import input_file, input_file_or_folder
from pipelines.judge_cli import judge_app
from pipelines.leaks_cli import leaks_command
from pipelines.lineage_cli import dataset_app, trace_command, verify_command
from pipelines.plan_cli import plan_command
from pipelines.ratings_cli import agreement_command, ratings_app
from pipelines.reconcile_cli import reconcile_command
from pipelines.registry_cli import promote_command, registry_command, rollback_command
from pipelines.scoring_cli import score_command, serve_command
from pipelines.selection_cli import learning_curves_command, propose_command
from pipelines.service_option import DEFAULT_OUT, DEFAULT_SERVICES, ProfileName, Services

START, DATA, TRAIN = "Start here", "Data and people", "Train"
EVALUATE, REGISTRY, SERVICES = "Evaluate", "Registry and lineage", "Services"
Help = Annotated[bool, typer.Option("--help", "-h", help="Show this message and exit.")]


def print_version(wanted: bool) -> None:
    """Print the version and exit, where --version is given.

    Args:
        wanted: Whether --version is given.

    Raises:
        typer.Exit: The version was printed.
    """
    if wanted:
        from importlib.metadata import version

        print(f"editloop {version('editloop')}")
        raise typer.Exit


class Commands(TyperGroup):
    """The commands. One that Ctrl-C ends says so; Typer by itself ends it without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for; an interrupt is told and gives 130.

        Args:
            ctx: Typer's context.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("editloop: stopped; the same call goes on where it was", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def editloop(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From experts' preferences to a better image editor.

    Begin with [bold]editloop demo[/bold]: it starts Label Studio and MLflow here, runs the whole loop small, and writes
    a report. [bold]editloop demo --edits FILE[/bold] does it with edits of your own.
    """


@app.command("demo", rich_help_panel=START)
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
        raise EditLoopError(f"--preset {preset}: no such preset; {there_are(preset, PRESETS)}")
    run_demo(out, PRESETS[preset].model_copy(update={"seed": seed}), edits=edits, experts=experts, keep=keep)


@app.command("doctor", rich_help_panel=START)
def doctor_command(services: Services = DEFAULT_SERVICES) -> None:
    """Check what this machine needs for the loop; exit with 1 where something is missing."""
    from infra.doctor import check_machine as examine

    checks = examine(services.absolute() / "services")
    for check in checks:
        print(f"{'✓' if check.ok else '✗'} {check.name:<22} {check.state}" + ("" if check.ok else f"   {check.advice}"))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


app.add_typer(campaign_app, name="campaign", rich_help_panel=DATA)
campaign_app.command("propose")(propose_command)
campaign_app.command("learning-curves")(learning_curves_command)


app.command("reconcile", rich_help_panel=DATA)(reconcile_command)
app.add_typer(edits_app, name="edits", rich_help_panel=DATA)
app.add_typer(ratings_app, name="ratings", rich_help_panel=DATA)
app.command("agreement", rich_help_panel=DATA)(agreement_command)
app.add_typer(teacher_app, name="teacher", rich_help_panel=DATA)
app.add_typer(dataset_app, name="dataset", rich_help_panel=DATA)


@app.command("run", rich_help_panel=TRAIN, add_help_option=False)
def run_command(
    context: typer.Context,
    pipeline: Annotated[str, typer.Argument(help="For example train-reward, learn-from-pairs or improve-editor.")] = "",
    argument: Annotated[
        list[str], typer.Option("--set", help="name=value of a pipeline parameter; may be repeated.")
    ] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Steps, cache and logs go below this folder.")] = DEFAULT_OUT,
    profile: ProfileName = None,
    wait: Annotated[bool, typer.Option("--wait", help="On a server: wait for the end, and print each step.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="On a server: start anew what a person stopped, or what failed.")
    ] = False,
    show_help: Help = False,
) -> None:
    """Run one pipeline, here or (with EDITLOOP_KFP_ENDPOINT set) on that Kubeflow Pipelines server.

    `editloop run NAME --help` lists the pipeline's parameters.

    For example: editloop run improve-editor --set edits_to_practise=/data/practice --set edits_held_out=/data/heldout
    """
    if show_help or not pipeline:
        print(context.get_help())
        if pipeline:
            from pipelines.compilation import show_parameters

            show_parameters(pipeline)
        return
    from pipelines.backend import make_starter, open_server, parse_arguments
    from pipelines.kfp_settings import KfpSettings

    arguments = parse_arguments(pipeline, argument)
    with services_of(out):
        if not KfpSettings().kfp_endpoint:
            status = make_starter(out, profile)(pipeline, arguments)
            if status.state != "started":
                print(status)
            return
        server = open_server(profile)
        status = server.submit(pipeline, arguments, again=again)
        print(status)
        if wait and status.state in ("started", "running") and status.run_id:
            status = server.wait(status.run_id)
            print(status)
        if status.state in ("failed", "stopped"):
            raise typer.Exit(1)


@app.command(
    "stage",
    rich_help_panel=TRAIN,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def stage_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the stage; `list` lists them.")] = "",
    show_help: Help = False,
) -> None:
    """Run one stage: its inputs, outputs and parameters are options of their names.

    `editloop stage list` shows each stage with its options; `editloop stage NAME --help` explains them. MLflow records
    the step under the name given by --run.

    For example: editloop stage reward --dataset data/dataset --output data/model --epochs 12 --run my-run
    """
    if not name:
        print(context.get_help())
        return
    from pipelines.stages import run_stage

    run_stage(name, ["--help"] if show_help else context.args)


@app.command("compile", rich_help_panel=TRAIN)
def compile_command(
    out: Annotated[Path, typer.Option(help="Folder for the YAML files.")],
    profile: Annotated[str, typer.Option(help="Deployment profile: a shipped one, or the path of a YAML file.")],
) -> None:
    """Compile the pipelines to YAML for a Kubeflow Pipelines server.

    For example: editloop compile --out build/ours --profile ours.yaml
    """
    from pipelines.compilation import compile_pipelines, read_deployment

    for path in compile_pipelines(out, read_deployment(profile)):
        print(path)


@app.command("join", rich_help_panel=TRAIN)
def join_command(
    job: Annotated[
        Path, typer.Argument(callback=input_file, help="The training's job file, which the first machine names.")
    ],
    node: Annotated[int, typer.Argument(min=1, help="Number of this machine, from 1.")],
) -> None:
    """Run this machine's share of a training that another machine started with EDITLOOP_NODES.

    Both see the training's folder, its dataset and its base at the same paths. The first machine writes the result.

    For example: editloop join /shared/.unfinished/edit-score-0123/job.json 1
    """
    from editloop.interruption import interrupt_on_termination
    from editloop.training.launch import join_training

    with interrupt_on_termination():
        join_training(job, node)


app.command("plan", rich_help_panel=TRAIN)(plan_command)
app.add_typer(judge_app, name="judge", rich_help_panel=TRAIN)
app.add_typer(editor_app, name="editor", rich_help_panel=TRAIN)


@app.command("weights", rich_help_panel=TRAIN)
def weights_command(
    model: Annotated[Literal["editor", "reward", "score"], typer.Argument(help="Which of the three tiny bases.")],
    output: Annotated[
        Path | None, typer.Option("--out", "--output", help="Folder to write; by default where the shipped one lies.")
    ] = None,
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


app.command("score", rich_help_panel=EVALUATE)(score_command)
app.command("benchmark", rich_help_panel=EVALUATE)(benchmark_command)
app.command("benchmark-editor", rich_help_panel=EVALUATE)(benchmark_editor_command)
app.command("best-of-n", rich_help_panel=EVALUATE)(best_of_n_command)
app.add_typer(gate_app, name="gate", rich_help_panel=EVALUATE)
app.command("leaks", rich_help_panel=EVALUATE)(leaks_command)
app.command("compare-judges", rich_help_panel=EVALUATE)(compare_judges_command)
app.command("claims", rich_help_panel=EVALUATE)(claims_command)
app.command("registry", rich_help_panel=REGISTRY)(registry_command)
app.command("promote", rich_help_panel=REGISTRY)(promote_command)
app.command("rollback", rich_help_panel=REGISTRY)(rollback_command)
app.command("verify", rich_help_panel=REGISTRY)(verify_command)
app.command("trace", rich_help_panel=REGISTRY)(trace_command)
app.command("serve", rich_help_panel=SERVICES)(serve_command)
app.add_typer(cluster_app, name="cluster", rich_help_panel=SERVICES)


@app.command("up", rich_help_panel=SERVICES)
def up_command(services: Services = DEFAULT_SERVICES) -> None:
    """Start Label Studio and MLflow here, and print the variables by which stages find them, and people's log-ins."""
    import shlex

    from infra.services import start_services
    from pipelines.environment import local_environment

    started = start_services(services.absolute() / "services")
    for key, value in (started.environment | local_environment(services.absolute())).items():
        print(f"export {key}={shlex.quote(value)}")
    for line in started.log_ins:
        print(f"# {line}")


@app.command("down", rich_help_panel=SERVICES)
def down_command(services: Services = DEFAULT_SERVICES) -> None:
    """Stop the services that run for a folder."""
    from infra.services import stop_services

    stopped = stop_services(services.absolute() / "services")
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


app.command("backup", rich_help_panel=SERVICES)(backup_command)
app.command("restore", rich_help_panel=SERVICES)(restore_command)


@app.command("status", rich_help_panel=SERVICES)
def status_command(services: Services = DEFAULT_SERVICES) -> None:
    """Show the services of a folder, and its latest steps where MLflow answers."""
    from infra.services import services_status

    statuses = services_status(services.absolute() / "services")
    for status in statuses:
        print(f"{status.service.name:<14} {status.state:<14} {status.service.url}")
    if not statuses:
        print(f"no services were started for {services}; `editloop up` or `editloop demo` starts them")
        return
    if any(status.service.name == "mlflow" and status.state == "running" for status in statuses):
        from editloop.lineage.tracking import find_runs
        from pipelines.catalogue import STAGES

        with services_of(services):
            for name in STAGES:
                for latest in find_runs(stage=name, limit=1):
                    print(f"{name:<14} {latest.info.status:<14} {latest.data.tags.get('editloop.pipeline_run')}")


def main() -> Any:
    """Run the command line. An EditLoopError is printed as one message and gives 1."""
    try:
        log_to_stderr()
        with mlflow_errors_in_one_line():
            return app()
    except EditLoopError as error:
        print(f"editloop: {error}", file=sys.stderr)
        return 1
