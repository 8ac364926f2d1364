"""`editloop verify`, `editloop trace` and `editloop dataset`: the lineage of models and data, and withdrawals."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from editloop.errors import EditLoopError
from pipelines.environment import services_of
from pipelines.input_options import input_folder
from pipelines.service_option import DEFAULT_SERVICES, Services

dataset_app = typer.Typer(no_args_is_help=True, help="The dataset's versions: exports and withdrawals.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Unsigned = Annotated[
    bool,
    typer.Option(
        "--unsigned-campaigns",
        help="End a chain, with a warning, at a campaign of release 0.2.0 or earlier, which has no signed record.",
    ),
]


def verify_command(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    as_json: Json = False,
    unsigned_campaigns: Unsigned = False,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Follow a registered model back to its annotators; exit with 1 at the first gap, and name it.

    Every link is looked up where it lives (registry, MLflow's runs, dataset repository, Label Studio) and compared by
    content. For example: editloop verify models:/editor@champion
    """
    from editloop.lineage.registry import parse_model
    from pipelines.verify import verify as walk

    parse_model(model)
    with services_of(services):
        chain = walk(model, accept_unsigned=unsigned_campaigns)
    if as_json:
        _print_json({"model": model, **chain.summary()})
    else:
        for link in chain.links:
            print(f"{'!' if 'warning' in link else '✓'} {link['name']:<22} {link['value']}")
        if chain.gap:
            print(f"✗ {chain.gap}")
    if chain.gap:
        raise typer.Exit(1)


def trace_command(
    annotator: Annotated[str, typer.Option(help="An annotator's name, as the judgements have it.")] = "",
    image: Annotated[str, typer.Option(help="sha256 of a picture file's bytes, or a path to the picture.")] = "",
    dataset: Annotated[str, typer.Option(help="A version of the dataset: its tag, commit or sha256.")] = "",
    model: Annotated[str, typer.Option(help="models:/NAME@ALIAS or models:/NAME/VERSION.")] = "",
    as_json: Json = False,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """What something came from, and what came of it: datasets, reward models, editors.

    For example: editloop trace --annotator ada
    """
    from editloop.lineage import trace as tracing
    from editloop.lineage.trace_page import show_trace

    tracers = {
        tracing.trace_annotator: annotator,
        tracing.trace_image: image,
        tracing.trace_dataset: dataset,
        tracing.trace_model: model,
    }
    requested = [(tracer, subject) for tracer, subject in tracers.items() if subject]
    if len(requested) != 1:
        raise EditLoopError("Give one of --annotator, --image, --dataset and --model.")
    ((tracer, subject),) = requested
    with services_of(services):
        lineage = tracer(subject)
    if as_json:
        _print_json(lineage.summary())
    else:
        show_trace(lineage)


@dataset_app.command("withdraw")
def withdraw_command(
    annotator: Annotated[str, typer.Option(help="The annotator who takes all ratings and decisions back.")] = "",
    task: Annotated[str, typer.Option(help="Id of the task that goes, with all that was said of it.")] = "",
    reason: Annotated[str, typer.Option(help="Why; kept on the list of withdrawals.")] = "",
    output: Annotated[Path, typer.Option("--out", "--output", help="Folder for the new versions.")] = Path(
        "runs/withdrawals"
    ),
    as_json: Json = False,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Make a new version of the dataset without an annotator or a task, and list the models that are tainted.

    Later builds leave it out too. Versions and models that have it stay, marked: train anew on the new version, gate
    and promote, then delete them where they must go.

    For example: editloop dataset withdraw --annotator ada --reason "asked by mail"
    """
    from editloop.lineage.trace_page import show_withdrawal
    from editloop.lineage.withdraw import withdraw as take

    if bool(annotator) == bool(task):
        raise EditLoopError("Give one of --annotator and --task.")
    with services_of(services):
        report = take("annotator" if annotator else "task", annotator or task, reason, output)
    if as_json:
        _print_json(report.summary())
    else:
        show_withdrawal(report)


@dataset_app.command("export")
def export_dataset_command(
    dataset: Annotated[Path, typer.Argument(callback=input_folder("dataset"), help="Folder of the dataset.")],
    out: Annotated[Path, typer.Option(help="Folder to write; its name becomes the title of its card.")],
) -> None:
    """Write a dataset as a folder for the Hugging Face hub: parquet by split with the pictures inside, and a card.

    `datasets.load_dataset(FOLDER, "candidates")` and `"pairs"` read it. The folder does not say who rated what.

    For example: editloop dataset export runs/demo/dataset/preferences --out hub/our-preferences
    """
    from editloop.datasets.hub_folder import export_hub_folder

    for split in export_hub_folder(dataset, out):
        print(f"{split.name}: {split.tasks} tasks, {split.candidates} edits, {split.pairs} pairs")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
