"""`editloop campaign propose` and `learning-curves`: choose the next tasks, and measure what the choice saves."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.environment import services_of
from pipelines.input_options import input_folder
from pipelines.service_option import DEFAULT_SERVICES, Services


def propose_command(
    pool: Annotated[
        Path,
        typer.Argument(
            callback=input_folder("candidates"), help="Candidates folder to choose from (`editloop stage candidates`)."
        ),
    ],
    output: Annotated[Path, typer.Option("--out", "--output", help="Candidates folder to write: the next campaign's.")],
    model: Annotated[
        str, typer.Option(help="Reward model to ask: a folder, a shipped name, or models:/edit-reward@champion.")
    ] = "models:/edit-reward@champion",
    dataset: Annotated[
        Path | None,
        typer.Option(
            callback=input_folder("dataset"),
            help="Dataset judged so far: an ensemble learns from it, and its tasks are not asked again.",
        ),
    ] = None,
    pages: Annotated[int, typer.Option(help="Tasks to ask.")] = 50,
    places: Annotated[int, typer.Option(help="Candidates a task.")] = 4,
    strategy: Annotated[
        Literal["active", "diverse", "random"],
        typer.Option(help="active: what tells most; diverse: of that, what lies far apart; random: without the model."),
    ] = "random",
    random_share: Annotated[float, typer.Option(help="Share of pages drawn at random, to calibrate with.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the ensemble and of what is drawn.")] = 0,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Choose what experts are asked next of a pool: at random, or what would teach the reward model most.

    For example: editloop campaign propose data/pool --dataset data/dataset --strategy active --out data/round-2

    The folder written is what `candidates:` of the next campaign's file names. proposal.json in it says what was chosen
    for its information, what at random, and how much each page would tell.
    """
    from contextlib import nullcontext

    from editloop.selection.propose import run_propose as choose

    with services_of(services) if strategy != "random" and model.startswith("models:") else nullcontext():
        proposed = choose(
            pool,
            output,
            model=model,
            dataset=dataset,
            strategy=strategy,
            pages=pages,
            places=places,
            random_share=random_share,
            seed=seed,
        )
    information = sorted((page.information for page in proposed if not page.at_random), reverse=True)
    print(f"pages      {len(proposed)}, of which {sum(page.at_random for page in proposed)} at random")
    if information:
        print(f"would tell {information[0]:.3f} (most) to {information[-1]:.3f} nats a page")
    print(f"written    {output}; name it under `candidates:` in the next campaign's file")


def learning_curves_command(
    out: Annotated[Path, typer.Option(help="Folder for learning-curves.json, .png and each seed's figures.")],
    seeds: Annotated[int, typer.Option(min=1, help="Worlds to measure; those measured before are kept.")] = 5,
) -> None:
    """Measure on drawn scenes how many judgements active selection saves against random choice."""
    from rich.table import Table

    from editloop.studies.learning_curves.learning_curves import learning_curves as measure
    from editloop.studies.learning_curves.plot import plot_curves, saving_phrases
    from editloop.terminal import text_console

    curves = measure(out, seeds=seeds)
    plot_curves(curves, out / "learning-curves.png")
    table = Table(title=f"Clear held-out pairs in the right order, mean of {seeds} seeds")
    for heading in ("judgements", *curves["accuracy"]):
        table.add_column(heading, justify="right")
    for index, judgements in enumerate(curves["judgements"]):
        means = (sum(accuracies[index] for accuracies in rows) / len(rows) for rows in curves["accuracy"].values())
        table.add_row(f"{judgements}", *(f"{mean:.3f}" for mean in means))
    console = text_console()
    console.print(table)
    for line in (*saving_phrases(curves), f"picture: {out / 'learning-curves.png'}"):
        console.print(line)
