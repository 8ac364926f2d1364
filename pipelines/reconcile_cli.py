"""`editloop reconcile`: passes on a schedule, and at hints of webhooks."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editloop.errors import EditLoopError
from pipelines.service_option import DEFAULT_OUT, ProfileName

if TYPE_CHECKING:
    from pipelines.reconcile import ReconcileResult


def reconcile_command(
    once: Annotated[bool, typer.Option("--once", help="Make one pass and end, as a CronJob does.")] = False,
    listen: Annotated[
        str,
        typer.Option(help="HOST:PORT that takes hints of webhooks; each makes a pass. EDITLOOP_HINT_SECRET."),
    ] = "",
    policy: Annotated[
        str, typer.Option(help="What is started and what only reported: a shipped policy, or a YAML file's path.")
    ] = "",
    out: Annotated[Path, typer.Option(help="Steps, cache and logs of what is started here go below this folder.")] = (
        DEFAULT_OUT
    ),
    seconds: Annotated[float, typer.Option(min=1, help="Seconds between two passes without --once.")] = 30.0,
    again: Annotated[
        bool, typer.Option("--again", help="Look also at campaigns that failed just now and have to wait.")
    ] = False,
    profile: ProfileName = None,
) -> None:
    """Start or report the next pipeline for complete campaigns and new champions. Safe to run twice or in two places.

    With what arguments, was said when the campaign was opened: collect-preferences' `follow_up`. Whether a pipeline is
    started or only reported as due, the policy says (by default the one in EDITLOOP_POLICY).

    For example: editloop reconcile --listen 0.0.0.0:8421 --seconds 300
    """
    from annotation.campaigns.label_studio import LabelStudioApi
    from annotation.campaigns.webhooks import ensure_webhooks
    from editloop.interruption import interrupt_on_termination
    from editloop.lineage.mlflow_errors import mlflow_errors_in_one_line
    from infra.settings import service_settings
    from pipelines.backend import make_starter
    from pipelines.environment import services_of
    from pipelines.hints import HintQueue, listen_for_hints
    from pipelines.kfp_settings import KfpSettings
    from pipelines.reconcile import reconcile
    from pipelines.reconcile_settings import ReconcileSettings, read_policy

    settings = ReconcileSettings()
    rules = read_policy(policy or settings.policy)
    hints = HintQueue(seconds)
    if once and listen:
        raise EditLoopError(f"--once --listen {listen}: one pass takes no hints; leave one of the two out.")
    if listen and settings.hint_secret is None:
        raise EditLoopError(
            f"--listen {listen}: EDITLOOP_HINT_SECRET is not set. Set it here and where hints come from: export "
            "EDITLOOP_HINT_SECRET=$(openssl rand -hex 32)"
        )
    lock_folder = None if KfpSettings().kfp_endpoint else out
    secret = settings.hint_secret.get_secret_value() if settings.hint_secret else ""
    with (
        interrupt_on_termination(),
        services_of(out),
        listen_for_hints(listen, hints, secret) if listen else nullcontext() as endpoint,
    ):
        if endpoint:
            print(f"hints    {endpoint}", flush=True)
        while True:
            try:
                with mlflow_errors_in_one_line():
                    result = reconcile(make_starter(out, profile), lock_folder, rules, again=again)
                _print_result(result)
                if listen and settings.hint_url:
                    ensure_webhooks(LabelStudioApi(service_settings()), result.campaigns, settings.hint_url, secret)
                if once:
                    raise typer.Exit(1 if result.has_failed else 0)
            except EditLoopError as error:  # a service is away, say: the next pass may find it
                if once:
                    raise
                print(f"failed   {error}", file=sys.stderr, flush=True)
            hints.wait()


def _print_result(result: "ReconcileResult") -> None:
    for line in result.lines():
        print(line, flush=True)
    for failure in result.failures:
        print(f"failed   {failure}", file=sys.stderr, flush=True)
