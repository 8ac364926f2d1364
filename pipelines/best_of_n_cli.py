"""`editloop best-of-n`: share of right edits when a judge picks the best of N tries."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from editloop.errors import EditLoopError
from pipelines.input_options import input_file_or_folder
from pipelines.scoring_cli import fetch_model
from pipelines.service_option import DEFAULT_SERVICES, Services


def best_of_n_command(
    edits: Annotated[
        Path,
        typer.Option(
            callback=input_file_or_folder, help="An edits.jsonl or a folder of them; each row has its right `target`."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--out", "--output", help="Folder to write: best-of-n.json, best-of-n.md, page.html.")
    ],
    judge: Annotated[
        list[str], typer.Option(help="NAME=ADDRESS of a judge as `editloop score --model` takes it; may be repeated.")
    ] = [],  # noqa: B006
    editor: Annotated[
        str, typer.Option(help="A pipeline's folder, a shipped name, or models:/editor@champion.")
    ] = "tiny-editor",
    edits_per_task: Annotated[int, typer.Option("--made", min=1, help="Edits of each task: the largest N.")] = 16,
    tasks: Annotated[int, typer.Option(min=1, help="The first so many tasks.")] = 200,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the intervals' resampling; the noise follows from the task.")] = 0,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Draw the curve of best-of-N for N = 1, 2, 4, ...: right edits when the oracle or a judge takes the best of N.

    For example: editloop best-of-n --edits heldout --judge reward=models:/edit-reward@champion --out runs/best
    """
    from editloop.content import complete_folder
    from editloop.data.edits_file import read_edits
    from editloop.evaluation.best_of_n.report import COUNTS, best_of_curves, curves_table, write_best_of
    from editloop.evaluation.best_of_n.sampling import sample_edits
    from editloop.evaluation.editors import ORACLE
    from editloop.models.editors.opening import open_editor
    from editloop.models.judge_protocol import describe_wording, wording_of
    from editloop.scoring.opening import open_judge
    from pipelines.environment import services_of

    addresses = dict(_named(text) for text in judge)
    if len(addresses) < len(judge) or ORACLE in addresses:
        raise EditLoopError(f"--judge {' '.join(judge)}: each needs a name of its own, other than {ORACLE}.")
    rows = read_edits(edits)[:tasks]
    is_registered = any(address.startswith("models:/") for address in (editor, *addresses.values()))
    with services_of(services) if is_registered else nullcontext():
        judges = {name: open_judge(fetch_model(address, services)) for name, address in addresses.items()}
        opened = open_editor(editor)
    sampled = sample_edits(opened, rows, judges, edits_per_task=edits_per_task, steps=steps)
    counts = sorted({*(count for count in COUNTS if count < edits_per_task), edits_per_task})
    curves = best_of_curves(sampled, counts, seed=seed)
    versions = {f"judge {name}": named_judge.version for name, named_judge in judges.items()}
    wordings = {
        f"wording of {name}": describe_wording(wording)
        for name, named_judge in judges.items()
        if (wording := wording_of(named_judge))
    }
    facts = {"editor": editor, "steps": steps, **versions, **wordings}
    with complete_folder(output, facts) as folder:
        write_best_of(sampled, curves, folder, facts)
    print(curves_table(curves))
    for name, wording_text in wordings.items():
        print(f"{name}: {wording_text}")
    print(output / "page.html")


def _named(text: str) -> tuple[str, str]:
    name, equals, address = text.partition("=")
    if not (name and equals and address):
        raise EditLoopError(f"--judge {text}: write NAME=ADDRESS, such as reward=models:/edit-reward@champion.")
    return name, address
