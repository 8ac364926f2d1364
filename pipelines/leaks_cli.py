"""`editloop leaks`: search a dataset for the content of a suite."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.input_options import input_file_or_folder, input_folder

if TYPE_CHECKING:
    from editloop.evaluation.leaks.leaks import Leaks

LISTED_WEAK = 10
"""Shared instructions that are printed; the others are only counted."""


def leaks_command(
    dataset: Annotated[
        Path,
        typer.Option(
            callback=input_folder("dataset"), help="Dataset folder; what its train and validation splits hold counts."
        ),
    ],
    suite: Annotated[str, typer.Option(help="Name of the suite (`editloop benchmark --help` lists them).")],
    data: Annotated[Path, typer.Option(callback=input_file_or_folder, help="The suite's own folder.")],
    remove: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write a dataset folder without the tasks concerned.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole list as JSON, and nothing else.")] = False,
) -> None:
    """Look for the suite's pictures in the training data: by bytes, by looks, and with the same instruction.

    For example: editloop leaks --dataset runs/mine/dataset --suite genai-bench --data suites/genai-bench

    Exits with 1 where the training data holds what the suite asks, unless --remove takes it out. An instruction that
    both have is listed as weak where no picture is shared, and is no leak.
    """
    from editloop.datasets.build import rebuild_dataset
    from editloop.datasets.withdrawal import Withdrawn
    from editloop.evaluation.leaks.leaks import find_leaks
    from editloop.evaluation.suites.opening import open_suite

    leaks = find_leaks(dataset, open_suite(suite, data))
    if as_json:
        print(json.dumps(leaks.report(), indent=2, ensure_ascii=False))
    else:
        _show(leaks, dataset)
    if leaks.hits and remove is None:
        raise typer.Exit(1)
    if remove is not None:
        figures = rebuild_dataset(dataset, remove, withdrawn=Withdrawn(tasks=leaks.task_ids))
        print(
            f"{remove}: {figures['pairs']:.0f} pairs of {figures['groups']:.0f} tasks, "
            f"{len(leaks.task_ids)} tasks taken out",
            file=sys.stderr if as_json else sys.stdout,
        )


def _show(leaks: "Leaks", dataset: Path) -> None:
    from editloop.evaluation.leaks.leaks import format_hit

    for hit in leaks.hits:
        print(format_hit(hit))
    print(
        f"{dataset}: {len(leaks.hits)} leaks of {leaks.suite}, in {len(leaks.task_ids)} tasks "
        f"({leaks.training_pictures} pictures against {leaks.suite_pictures}; {leaks.flat} say nothing)"
    )
    for weak in leaks.weak[:LISTED_WEAK]:
        print(f"weak: {weak.instruction!r} is asked in {weak.tasks} tasks and {weak.items} of the suite's items")
    if len(leaks.weak) > LISTED_WEAK:
        print(f"weak: {len(leaks.weak) - LISTED_WEAK} more instructions that both have")
