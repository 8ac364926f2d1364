"""One turn of the loop on this machine, with real services. A stopped turn resumes.

Everything is written below one folder: edits, services, steps, dataset repository, summary, report. Each part reuses
what an earlier call finished, so a call that was killed is simply repeated.
"""

import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from annotation.campaigns.campaign import read_campaign
from annotation.campaigns.invitations import invitation_lines, invitations
from annotation.simulated_experts import answer_campaign
from editloop.content import read_manifest, sha256_json, write_json
from editloop.errors import EditLoopError
from editloop.interruption import interrupt_on_termination
from editloop.lineage.chain import Chain
from editloop.lineage.mlflow_errors import mlflow_errors_in_one_line
from editloop.lineage.registry import CHALLENGER, CHAMPION, find_version
from editloop.lineage.stored_folders import StoredFolderSettings
from editloop.object_folders import put_folder
from editloop.terminal import text_console
from infra.service_watch import watched_services
from infra.services import start_services, stop_services
from infra.settings import service_settings
from pipelines.catalogue import find_pipeline, read_run_settings
from pipelines.command_lock import command_lock
from pipelines.damaged_steps import reopen_damaged_runs
from pipelines.environment import local_environment
from pipelines.inputs import Inputs, draw_scenes, split_edits
from pipelines.local import run_local
from pipelines.reconcile import LAST_STAGE, PendingCampaign, has_finished_run, reconcile
from pipelines.reconcile_settings import ReconcilePolicy
from pipelines.report import write_report
from pipelines.report_data import gather_report_data
from pipelines.run_status import RunStatus
from pipelines.settings import LoopSettings
from pipelines.step_worker import warm_steps
from pipelines.summary import CHAMPIONS, Turn, summarise
from pipelines.verify import verify

Experts = Literal["simulated", "human"]
SECONDS_BETWEEN_LOOKS = 5.0
"""Pause between two reconcile passes while people annotate."""


def run_demo(
    out: Path, loop: LoopSettings, *, edits: Path | None = None, experts: Experts = "simulated", keep: bool = False
) -> dict[str, Any]:
    """Run one turn of the loop, and return the content of summary.json.

    A service that ends meanwhile is started again. However the call ends, the services are stopped, unless it succeeded
    and `keep` is set.

    Args:
        out: Folder to write.
        loop: Settings of the turn.
        edits: A team's own edits file, or a folder of them; None for drawn scenes.
        experts: `simulated` submits answers of simulated experts; `human` waits for people.
        keep: Leave the services running after a call that succeeds.

    Raises:
        EditLoopError: The input is faulty (nothing is written then), another demo runs in the folder, a step failed,
            or the lineage of a model has a gap; the report is there then.
    """
    began, console, keep_services = time.time(), text_console(), False
    with interrupt_on_termination(), command_lock(out, "demo"), warm_steps(), ThreadPoolExecutor(1) as beside:
        folder = out.absolute()
        drawn, home = folder / "edits", folder / "services"
        if edits:
            inputs = split_edits(drawn, edits, loop.seed)
        else:
            drawing = beside.submit(draw_scenes, drawn, loop.scenes, loop.seed)
        try:
            with console.status("Starting Label Studio and MLflow"):
                services = start_services(home)
            if not edits:
                inputs = drawing.result()
            os.environ.update(services.environment | local_environment(folder))
            for output in reopen_damaged_runs(folder, LAST_STAGE.values()):
                console.print(f"{output.fault} Its step runs again, and those after it.", style="yellow")
            with watched_services(home, lambda line: console.print(line, soft_wrap=True)):
                turn = _turn(folder, loop, inputs, experts, console)
                with console.status("Verifying the lineage of both models"):
                    chains = lineages()
                summary = summarise(turn, loop, inputs, chains, experts, time.time() - began)
                summary["services"] = {
                    "label_studio": service_settings().label_studio_url,
                    "mlflow": os.environ["MLFLOW_TRACKING_URI"],
                }
                write_json(folder / "summary.json", summary)
                gather_report_data(folder, turn.outputs)
                report = write_report(folder)
                _show(console, summary, report)
            check_lineage(summary["verify"])
            keep_services = keep
        finally:
            if not keep_services:
                stop_services(home)
        if keep:
            for line in (*services.log_ins, f"`editloop down --services {out}` stops both."):
                console.print(line, soft_wrap=True)
    return summary


def _turn(folder: Path, loop: LoopSettings, inputs: Inputs, experts: Experts, console: Console) -> Turn:
    """Run the three pipelines, with the experts' answers between the first and the second."""
    turn = Turn()

    def start(pipeline: str, arguments: dict[str, Any]) -> RunStatus:
        with console.status(pipeline) as status:
            run_local(pipeline, arguments, folder, lambda step: status.update(f"{pipeline}: {step}"))
        console.print(f"✓ {pipeline}", style="green")
        return RunStatus(read_run_settings(arguments["settings"])["run_key"], "started")

    arguments = {
        "edits": _handed_over(inputs.judged),
        **_values("collect-preferences", loop, "candidates", "annotate"),
        "follow_up": json.dumps(_follow_up(loop, inputs), sort_keys=True),
    }
    if not any(_targets(inputs.judged)):
        arguments["gold_share"] = 0.0
    key = f"collect-preferences-{sha256_json([arguments, read_manifest(inputs.judged)['sha256']])[:16]}"
    if not has_finished_run("collect-preferences", key):
        start("collect-preferences", find_pipeline("collect-preferences").arguments(arguments | {"run_key": key}))
    turn.read(key)
    campaign = read_campaign(turn.outputs["annotate"]).key
    if experts == "simulated":
        answer_count = answer_campaign(
            turn.outputs["annotate"], turn.outputs["candidates"], settings=service_settings(), seed=loop.seed
        )
        console.print(f"✓ simulated experts: {answer_count} pages answered", style="green")
    # A person made this call: what failed in the one before is not waited for.
    reconciled, last_news = reconcile(start, folder, ReconcilePolicy(), again=True), ""
    while pending_campaign := next(
        (pending for pending in reconciled.waiting if pending.campaign.key == campaign), None
    ):
        if experts == "simulated":
            raise EditLoopError(pending_campaign.reason)
        news = pending_campaign.reason if pending_campaign.progress.complete else "answers are missing"
        if news != last_news:
            _invite(console, pending_campaign)
        last_news = news
        time.sleep(SECONDS_BETWEEN_LOOKS)
        reconciled = reconcile(start, folder, ReconcilePolicy())
    if reconciled.failures:
        raise EditLoopError("\n".join(reconciled.failures))
    for run in reconciled.runs:
        turn.read(run.key)
    return turn


def lineages() -> dict[str, Chain]:
    """Return the lineage of the reward model and of the editor, by name: the champion's, or the challenger's where no
    gate has said "promote" yet. A model that has no version is left out.
    """
    chains = {}
    for name, champion in CHAMPIONS.items():
        addresses = (champion, champion.replace(f"@{CHAMPION}", f"@{CHALLENGER}"))
        with mlflow_errors_in_one_line():
            model = next(filter(find_version, addresses), None)
        if model:
            chains[name] = verify(model)
    return chains


def check_lineage(chains: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the lineage of every model is complete.

    Args:
        chains: What `Chain.summary` returns, by the model's name.

    Raises:
        EditLoopError: It has a gap. One line for each model.
    """
    gaps = [f"lineage of {name}: {chain['gap']}" for name, chain in chains.items() if not chain["complete"]]
    if gaps:
        raise EditLoopError("\n".join([*gaps, "`editloop trace MODEL` shows the whole chain."]))


def _follow_up(loop: LoopSettings, inputs: Inputs) -> dict[str, Any]:
    """Return the arguments of the pipelines that reconcile starts when the campaign is closed."""
    return {
        "train-reward": _values("train-reward", loop, "reward", "benchmark"),
        "improve-editor": {
            "edits_to_practise": _handed_over(inputs.prompts),
            "edits_held_out": _handed_over(inputs.heldout),
            **_values("improve-editor", loop, "editor_rl", "editor_eval"),
            **({} if all(_targets(inputs.prompts)) else {"watch": _without_oracle(loop.editor_rl.watch)}),
        },
    }


def _handed_over(edits: Path) -> str:
    """Return where a pipeline finds an edits folder: in object storage, where its steps keep what they write."""
    objects = StoredFolderSettings().objects
    return put_folder(edits, objects) if objects else str(edits)


def _values(pipeline: str, loop: LoopSettings, *stages: str) -> dict[str, Any]:
    """Return the values that a turn's settings give for a pipeline's stages, by their names in the pipeline."""
    return find_pipeline(pipeline).stage_values({stage: loop.stage_values(stage) for stage in stages})


def _targets(edits: Path) -> list[bool]:
    """Return for each task of an edits folder whether it has a target, which gold pages and the oracle need."""
    return [bool(json.loads(line).get("target")) for line in (edits / "edits.jsonl").read_bytes().splitlines()]


def _without_oracle(watch: str) -> str:
    """Return the watching judges without the oracle, which can score only tasks with targets."""
    return " ".join(judge for judge in watch.split() if judge != "oracle")


def _invite(console: Console, pending: PendingCampaign) -> None:
    """Print where people answer and their log-ins, or why the campaign cannot close."""
    console.print(pending.reason)
    if not pending.progress.complete:
        for line in invitation_lines(invitations(service_settings(), pending.campaign), passwords=True):
            console.print(line, soft_wrap=True)
    console.print("The loop goes on by itself when the campaign closes; Ctrl-C stops it, and the next call goes on.")


def _show(console: Console, summary: dict[str, Any], report: Path) -> None:
    table = Table(title="One turn of the loop")
    for column in ("stage", "status", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for row in summary["stages"]:
        table.add_row(row["name"], row["status"], f"{row['seconds']:.1f}")
    console.print(table)
    annotation, reward, editor = summary["annotation"], summary["reward"], summary["editor"]
    lines = [
        f"agreement (alpha)   instruction following {_figure(annotation['alpha']['if'])}, "
        f"visual quality {_figure(annotation['alpha']['vq'])}",
        f"reward accuracy     {_figure(reward.get('accuracy_oracle'))} (95 % {_interval(reward.get('ci95'))}), "
        f"before {_figure(reward.get('accuracy_base'))}; gate: {summary['gate']['reward'].get('verdict')}",
    ]
    if editor:
        lines.append(
            f"right edits         {_figure(editor['base'])} -> {_figure(editor['tuned'])}, uplift "
            f"{_figure(editor['uplift'])} (95 % {_interval(editor['ci95'])}); "
            f"gate: {summary['gate']['editor'].get('verdict')}"
        )
    for name, chain in summary["verify"].items():
        held = f" ({CHALLENGER})" if chain["model"].endswith(CHALLENGER) else ""
        lines.append(f"lineage of {name:<8} {'complete' if chain['complete'] else 'GAP: ' + str(chain['gap'])}{held}")
    console.print(
        "\n".join([*lines, f"report              {report}", f"whole call          {summary['seconds']:.0f} s"]),
    )


def _figure(value: Any) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _interval(ends: Any) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "not measured"
