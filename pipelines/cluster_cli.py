"""`editloop cluster`: check a cluster, upload pipelines to its Kubeflow Pipelines server, watch and stop their runs."""

import json
from typing import Annotated

import typer

from editloop.errors import EditLoopError, there_are
from pipelines.service_option import ProfileName

cluster_app = typer.Typer(no_args_is_help=True, help="Check a cluster, upload pipelines to it, watch and stop runs.")
Run = Annotated[str, typer.Argument(help="Key, name or id of the run.")]


@cluster_app.command("preflight")
def preflight_command(profile: ProfileName = None) -> None:
    """List everything that a cluster lacks for a profile's runs, with its cure; exit with 1 where something is missing.

    For example: editloop cluster preflight --profile ours.yaml
    """
    from pipelines.cluster_check import check_cluster
    from pipelines.compilation import read_deployment
    from pipelines.kfp_settings import KfpSettings

    settings = KfpSettings()
    checks = check_cluster(settings, read_deployment(profile or settings.require("profile")))
    for check in checks:
        print(f"{'✓' if check.ok else '✗'} {check.name:<34} {check.state}" + ("" if check.ok else f"   {check.advice}"))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@cluster_app.command("upload")
def upload_command(
    version: Annotated[str, typer.Option(help="Name of the version, such as a release or a commit.")],
    pipeline: Annotated[list[str] | None, typer.Argument(help="Pipelines; by default all.")] = None,
    profile: ProfileName = None,
) -> None:
    """Upload pipelines, so that operators start them in the UI.

    For example: editloop cluster upload --version 2026-12-01
    """
    from pipelines.backend import open_server
    from pipelines.catalogue import PIPELINES

    server = open_server(profile)
    for name in pipeline or PIPELINES:
        print(f"{name:<20} {server.upload(name, version)}")


@cluster_app.command("status")
def status_command(
    run: Run,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    profile: ProfileName = None,
) -> None:
    """Show the steps of a run, and where it can be watched.

    For example: editloop cluster status train-reward-4f1c-2a9b
    """
    from pipelines.backend import open_server

    server = open_server(profile)
    run_id = server.find(run)
    steps = server.steps(run_id)
    if as_json:
        rows = [step._asdict() for step in steps]
        print(json.dumps({"run": run_id, "address": server.address(run_id), "steps": rows}, indent=1))
        return
    for title, state, error in steps:
        print(f"{state:<10} {title}" + (f": {error}" if error else ""))
    print(server.address(run_id))


@cluster_app.command("logs")
def logs_command(
    run: Run,
    step: Annotated[str, typer.Option(help="A step's stage, or part of its title; by default all steps.")] = "",
    tail: Annotated[int, typer.Option(help="Lines of each step.", min=1)] = 40,
    profile: ProfileName = None,
) -> None:
    """Print the last lines of the logs of a run's steps, as long as the cluster keeps their pods.

    For example: editloop cluster logs train-reward-4f1c-2a9b --step "Train the reward"
    """
    from pipelines.backend import open_server
    from pipelines.cluster_check import pod_logs

    server = open_server(profile)
    logs = list(pod_logs(server.profile.namespace, server.find(run), tail))
    if not logs:
        raise EditLoopError(
            f"{run}: no pod of it is left in namespace {server.profile.namespace}. See its page in the UI."
        )
    chosen = [found for found in logs if step.lower() in found.title.lower() or step.replace("_", "-") == found.step]
    if not chosen:
        steps = sorted({found.step for found in logs})
        raise EditLoopError(f"--step {step}: no pod of such a step in {run}; {there_are(step, steps)}")
    for found in chosen:
        print(f"--- {found.title}\n{found.text.rstrip()}")


@cluster_app.command("stop")
def stop_command(run: Run, profile: ProfileName = None) -> None:
    """Stop a run. `editloop reconcile` does not start it again; `editloop run --again` does.

    For example: editloop cluster stop train-reward-4f1c-2a9b
    """
    from pipelines.backend import open_server

    server = open_server(profile)
    run_id = server.find(run)
    server.stop(run_id)
    print(f"stopping {run}  {server.address(run_id)}")
