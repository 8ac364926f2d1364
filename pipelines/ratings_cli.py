"""`editloop agreement` and `editloop ratings`: agreement statistics, import and export of ratings."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from editloop.errors import EditLoopError
from pipelines.imported_rows import print_skipped
from pipelines.input_options import input_file, input_file_or_folder, input_folder, plain_folder

ratings_app = typer.Typer(no_args_is_help=True, help="Bring older ratings in, and take ours out.")

ExportFormat = Annotated[
    Literal["table", "editreward", "editreward-parquet", "label-studio"],
    typer.Option(
        "--format",
        help="table: a row an item and rater, with raters' names; editreward: the rows of EditReward's trainer; "
        "editreward-parquet: as its data is published; label-studio: tasks for a project's import.",
    ),
]
ImportFormat = Annotated[
    Literal["table", "team-table", "label-studio", "editreward"],
    typer.Option(
        "--format",
        help="table: ratings of candidates that are here, by our ids; team-table: a team's own table, with its "
        "pictures; label-studio: another project's export; editreward: EditReward's pairs.",
    ),
]


def agreement_command(
    file: Annotated[
        Path, typer.Argument(callback=input_file, help="CSV or parquet with columns item, rater, then one an axis.")
    ],
    level: Annotated[
        Literal["ordinal", "interval", "nominal"], typer.Option(help="What the ratings are: ranks, amounts or names.")
    ] = "ordinal",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures for programs.")] = False,
) -> None:
    """Krippendorff's alpha of a table of ratings, an axis a line, with 95 % bootstrap intervals.

    An empty cell is a missing rating. Columns task, candidate, position, seconds and created_at are no axes; where task
    is given, whole tasks are resampled. Alpha is 1 for full agreement and 0 for chance; where it is undefined, the
    reason is said.

    For example: editloop agreement ratings.csv --level ordinal --json
    """
    from annotation.formats.ratings_table import agreement_of_table, read_table

    figures = agreement_of_table(read_table(file, level), level)
    if as_json:
        print(json.dumps(figures, indent=2, ensure_ascii=False))
        return
    for axis, axis_figures in figures["axes"].items():
        size = f"{axis_figures['items']} items, {axis_figures['raters']} raters"
        if axis_figures["alpha"] is None:
            print(f"{axis:<24} undefined: {axis_figures['note']} ({size})")
            continue
        ends = axis_figures["ci95"]
        interval = f"95 % {ends[0]:.3f} to {ends[1]:.3f}" if ends is not None else "no interval"
        print(f"{axis:<24} alpha {axis_figures['alpha']:.3f}   {interval}   {size}")


@ratings_app.command("import")
def import_ratings_command(
    file: Annotated[
        Path,
        typer.Argument(
            callback=input_file_or_folder,
            help="The table; Label Studio's export (JSON, JSON_MIN, CSV); EditReward's published parquet file or a "
            "folder of them; or its trainer's JSON.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of judgements to write, as stage collect writes it.")],
    candidates: Annotated[
        Path, typer.Option(help="Folder of the candidates: read for a table, written by the other formats.")
    ],
    form: ImportFormat = "table",
    images: Annotated[
        Path | None,
        typer.Option(
            callback=plain_folder, help="Folder of the pictures, if it is not that of FILE (team-table, label-studio)."
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="Scale of a team-table, WORST..BEST, if it is not 1..4: mapped linearly onto that."),
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(callback=input_file, help="What the names of a Label Studio project mean (YAML).")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Refuse rows with faults instead of leaving them out.")] = False,
) -> None:
    """Make judgements of older ratings, so that `editloop stage dataset` and `campaign report` run on them.

    Rows with faults are left out, counted, and listed in the judgements' skipped.txt; an import that was stopped goes
    on at the row it had reached. A table of our ids with faults is refused. docs/imports.md has the columns of a
    team-table and the mapping file of a Label Studio project.

    A Label Studio project: editloop ratings import export.json --format label-studio --mapping mapping.yaml --images
    pictures --candidates data/c --out data/j

    For example: editloop ratings import ratings.csv --format team-table --scale 1..5 --candidates data/c --out data/j
    """
    _check_options(form, {"--images": images, "--scale": scale, "--mapping": mapping})
    if form == "table":
        _import_table(file, candidates, out)
        return
    if form == "editreward":
        from annotation.formats.editreward_import import import_pairs

        report = import_pairs(file, candidates, out, strict=strict)
    elif form == "team-table":
        from annotation.formats.rating_scale import OUR_SCALE, parse_scale
        from annotation.formats.team_table import import_team_table

        scale_of_table = parse_scale(scale, "--scale") if scale else OUR_SCALE
        report = import_team_table(file, candidates, out, images=images, scale=scale_of_table, strict=strict)
    else:
        from annotation.formats.label_studio_import import import_label_studio

        if mapping is None:
            raise EditLoopError(
                "--mapping is missing: a file that says what the project's names mean; docs/imports.md explains it."
            )
        report = import_label_studio(file, mapping, candidates, out, images=images, strict=strict)
    print(f"{report.rows} rows, {report.tasks} tasks, {report.judgements} judgements")
    for note in report.notes:
        print(f"not taken: {note}")
    print_skipped(report.skipped, out)


OPTIONS_OF_FORMATS = {
    "--images": ("team-table", "label-studio"),
    "--scale": ("team-table",),
    "--mapping": ("label-studio",),
}
"""The formats that read each option."""


def _check_options(form: str, options: dict[str, object]) -> None:
    """Refuse an option that the format does not read."""
    for option, value in options.items():
        if value is not None and form not in OPTIONS_OF_FORMATS[option]:
            raise EditLoopError(f"{option} is for --format {' or '.join(OPTIONS_OF_FORMATS[option])}, not for {form}.")


def _import_table(file: Path, candidates: Path, out: Path) -> None:
    from annotation.formats.judgements_folder import ImportedData, write_imported
    from annotation.formats.ratings_table import judgements_of_table
    from editloop.content import sha256_bytes
    from editloop.data.candidates_folder import read_tasks
    from editloop.input_paths import check_complete_folder
    from editloop.lineage.stage_inputs import FOLDERS
    from editloop.text_file import file_bytes

    check_complete_folder("--candidates", candidates, FOLDERS["candidates"])
    tasks = read_tasks(candidates)
    judgements = judgements_of_table(file, tasks)
    content = file_bytes(file)
    origin = ImportedData(file.name, "table", {file.name: sha256_bytes(content)}, {})
    write_imported(out, judgements, tasks, origin, candidates / "images", {f"imported{file.suffix}": content})
    print(f"{len(judgements)} judgements")


@ratings_app.command("export")
def export_ratings_command(
    judgements: Annotated[
        Path, typer.Argument(callback=input_folder("judgements"), help="Folder that stage collect or an import wrote.")
    ],
    out: Annotated[Path, typer.Option(help="A .csv or .parquet file for a table; else a folder.")],
    candidates: Annotated[
        Path | None,
        typer.Option(callback=input_folder("candidates"), help="Folder of the candidates; all but tables need it."),
    ] = None,
    form: ExportFormat = "table",
    with_annotators: Annotated[
        bool, typer.Option("--with-annotators", help="Write the annotators' names into Label Studio's tasks.")
    ] = False,
) -> None:
    """Write judgements as a table, as EditReward's pairs with their pictures, or as Label Studio's tasks.

    But for a table, no format names the annotators by itself. What a format cannot hold is left out and counted.

    For example: editloop ratings export data/j --candidates data/c --format editreward-parquet --out data/published
    """
    from annotation.formats.judgements_folder import read_judgements

    if with_annotators and form != "label-studio":
        raise EditLoopError(
            f"--with-annotators: --format {form} {'always has' if form == 'table' else 'cannot hold'} names. Leave it "
            "out, or give --format label-studio."
        )
    judgement_rows = read_judgements(judgements)
    if form == "table":
        from annotation.formats.ratings_table import write_judgements

        if out.suffix not in (".csv", ".parquet"):
            raise EditLoopError(f"--out {out}: a table is a .csv or a .parquet file.")
        write_judgements(judgement_rows, out)
        print(f"{len(judgement_rows)} ratings")
        return
    if candidates is None:
        raise EditLoopError(f"--candidates is missing: --format {form} shows pictures, and that folder has them.")
    from annotation.formats.editreward_rows import export_parquet, export_rows
    from annotation.formats.label_studio_export import export_label_studio
    from editloop.data.candidates_folder import read_tasks

    tasks = read_tasks(candidates)
    if form == "label-studio":
        report = export_label_studio(judgement_rows, tasks, candidates, out, with_annotators=with_annotators)
    else:
        export = export_rows if form == "editreward" else export_parquet
        report = export(judgement_rows, tasks, candidates, out)
    print(f"{report.rows} {'tasks' if form == 'label-studio' else 'rows'}")
    for what, count in report.left_out.items():
        print(f"left out: {count} {what}")
