"""`editloop claims`: measure the papers' claims at laptop scale."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editloop.errors import EditLoopError, there_are

if TYPE_CHECKING:
    from editloop.studies.claims.running import PiecesProgress


def claims_command(
    out: Annotated[
        Path, typer.Option(help="Folder for claims.json, claims.md, page.html and what each piece measured.")
    ] = Path("runs/claims"),
    claim: Annotated[
        str, typer.Option("--claims", help="Numbers of the claims, with commas. Without it all eight.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Worlds to measure on; those measured before are kept.")] = 3,
    minutes: Annotated[
        float, typer.Option(min=0, help="No piece is begun that would by plan end later; 0: as long as it takes.")
    ] = 60.0,
    processes: Annotated[int, typer.Option(min=1, help="Pieces side by side, a core each.")] = 2,
    size: Annotated[str, typer.Option(help="standard, or smallest: a check that all parts work.")] = "standard",
) -> None:
    """Measure on drawn scenes whether the papers' claims hold, with intervals over seeds, whichever way they fall.

    1: RL with the learnt reward lifts the editor. 2: with a weak reward less. 3: the best-scored part of noisy edits
    beats all of them. 4: Avg@K beats one pass. 5: several heads with uncertainty beat a shared head and regression. 6:
    best-of-N rises with N. 7: a second round lifts further. 8: pairs lift more than the best labelled edits.

    An hour on two cores. Ctrl-C keeps what is done; the same call goes on there, more seeds add to it.
    """
    from rich.progress import BarColumn, Progress, TextColumn

    from editloop.interruption import interrupt_on_termination
    from editloop.studies.claims.claims import measure_claims, plan_claims
    from editloop.studies.claims.settings import SIZES
    from editloop.studies.claims.store import Store
    from editloop.terminal import text_console
    from pipelines.command_lock import command_lock

    if size not in SIZES:
        raise EditLoopError(f"--size {size}: no such size; {there_are(size, SIZES)}")
    numbers, store, console = _numbers(claim), Store(out, SIZES[size]), text_console()
    with interrupt_on_termination(), command_lock(out, "claims"):
        waiting, seconds = plan_claims(store, numbers, seeds, processes)
        console.print(f"{len(waiting)} pieces to measure, about {_duration(seconds)} by {processes} processes.")
        if minutes and seconds > 60 * minutes:
            console.print(
                f"That is more than the {minutes:g} minutes of --minutes: what verdicts hang on comes first, "
                "seed after seed, what is missing then is told, and the same call goes on."
            )
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("claims", total=len(waiting), told="")

            def tell(state: "PiecesProgress") -> None:
                if state.ended:
                    name, seed = state.ended
                    progress.console.print(
                        f"{state.done}/{state.pieces}  {name}, seed {seed}: {state.seconds:.0f} s; "
                        f"about {_duration(state.left)} left",
                        highlight=False,
                    )
                running = ", ".join(f"{name} {seed}" for name, seed in state.running)
                progress.update(bar, completed=state.done, told=f"{_duration(state.left)} left  {running}")

            report = measure_claims(
                store, numbers, seeds=seeds, processes=processes, seconds=60 * minutes or math.inf, tell=tell
            )
    for measured_claim in report["claims"]:
        console.print(
            f"{measured_claim['number']}  {measured_claim['verdict']:<12}  {measured_claim['says']}", highlight=False
        )
        for contrast in measured_claim["contrasts"]:
            console.print(f"     {contrast['label']}: {contrast['shown']}", highlight=False, style="dim")
    console.print(f"{out / 'page.html'}")


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number.strip()]
    except ValueError:
        raise EditLoopError(f"--claims {text}: give numbers with commas, as in 1,2.") from None


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
