"""`editloop teacher import` and `editloop adapter`: import distilled edits and released adapters for EditScore."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.input_options import input_file, plain_folder

teacher_app = typer.Typer(no_args_is_help=True, help="Bring in edits that a strong model has judged.")


@teacher_app.command("import")
def import_teacher_command(
    file: Annotated[
        Path, typer.Argument(callback=input_file, help="JSON lines of key, instruction, source, edit, editor, sc, pq.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of taught edits to write; `stage reward` trains EditScore on it.")],
    top: Annotated[int, typer.Option(min=1, help="Highest of the teacher's points; 0 is the lowest.")] = 25,
    least_best: Annotated[
        float, typer.Option(min=0, max=10, help="Drop a task whose best edit's O (0..10) is below: nobody achieved it.")
    ] = 0.0,
    least_spread: Annotated[
        float, typer.Option(min=0, help="Drop a task whose edits' O has a smaller standard deviation: all are alike.")
    ] = 0.0,
) -> None:
    """Check a teacher's rows, drop tasks that teach nothing, and keep the rest with its pictures.

    A faulty row is named by its line, and then nothing is written. What was dropped is counted by reason.

    For example: editloop teacher import judged/rows.jsonl --out data/taught --least-best 5 --least-spread 0.5
    """
    from editloop.training.edit_score.distillation import import_distillation_rows

    counts = import_distillation_rows(file, out, top=top, least_best=least_best, least_spread=least_spread)
    for name, count in counts.items():
        print(f"{name:<28} {count:>8,}")


def adapter_command(
    base: Annotated[str, typer.Argument(help="Folder of the base's checkpoint, or a shipped name.")],
    folder: Annotated[
        Path, typer.Argument(callback=plain_folder, help="The adapter's folder as PEFT wrote it (safetensors).")
    ],
    out: Annotated[Path, typer.Option(help="The model folder to write: what `score` and `serve` take as --model.")],
    base_name: Annotated[
        str | None, typer.Option(help="What model the base's folder holds, if its own name does not tell.")
    ] = None,
) -> None:
    """Make an EditScore model of a released adapter and its base, after checking that they belong together.

    For example: editloop adapter models/Qwen3-VL-8B-Instruct models/EditScore-Qwen3-VL-8B --out models/edit-score
    """
    from editloop.models.edit_score.checkpoints import import_released_adapter

    import_released_adapter(base, folder, out, base_name=base_name)
    print(out)
