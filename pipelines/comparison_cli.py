"""`editloop compare-judges`: compare published choices of training a judge, on drawn scenes."""

from pathlib import Path
from typing import Annotated

import typer

from editloop.errors import EditLoopError, there_are


def compare_judges_command(
    out: Annotated[Path, typer.Option(help="Folder for comparison.json, comparison.md and each seed's figures.")] = (
        Path("runs/comparison")
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Worlds to measure on; those measured before are kept.")] = 3,
    part: Annotated[
        list[str], typer.Option(help="losses, passes or orders; may be repeated. Without it all of them.")
    ] = [],  # noqa: B006
) -> None:
    """Train tiny judges in several ways on drawn scenes, and say with intervals which way is better.

    losses: a head an axis with uncertainty, as coded and as printed, against one shared head, Bradley-Terry and
    pointwise regression. passes: EditScore asked once and four times. orders: EditReward's published order of the input
    against rubric first. A quarter of an hour a seed on one core; stopped, the same call goes on.
    """
    from editloop.studies.comparison.comparison import COMPARED, compare, comparison_table

    if unknown := sorted(set(part) - set(COMPARED)):
        raise EditLoopError(f"--part {', '.join(unknown)}: no such part; {there_are(unknown[0], COMPARED)}")
    chosen = [name for name in COMPARED if not part or name in part]
    print(comparison_table(compare(out, seeds=seeds, parts=chosen)))
