"""`editloop score` and `editloop serve`: write a judge's scores to a table, or serve them over HTTP."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editloop.errors import EditLoopError
from pipelines.environment import services_of
from pipelines.input_options import input_file_or_folder
from pipelines.service_option import DEFAULT_SERVICES, Services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from editloop.models.judge_protocol import Judge

Model = Annotated[
    str,
    typer.Option(
        help="A model's folder, a shipped name (tiny-reward), models:/NAME@ALIAS, http://HOST:PORT of `editloop serve` "
        "(token: EDITLOOP_JUDGE_TOKEN), or openai:http://HOST/v1#MODEL (key: EDITLOOP_OPENAI_KEY)."
    ),
]

Processes = Annotated[
    int,
    typer.Option(
        min=1, help="GPUs of this machine that share the weights of a local model, where they do not fit into one."
    ),
]

Passes = Annotated[int | None, typer.Option(min=1, help="K of EditScore's Avg@K; by default the model's own.")]


def score_command(
    model: Model,
    source: Annotated[
        Path,
        typer.Option(
            "--input",
            callback=input_file_or_folder,
            help="An edits.jsonl, or a folder of them; its candidates are scored.",
        ),
    ],
    output: Annotated[Path, typer.Option("--out", "--output", help="The .parquet file to write, a row an edit.")],
    best_of: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Score only the first N candidates of each task, and keep the best of them: beside the scores, a "
            "folder NAME-best with an edits.jsonl of one candidate a row, and its pictures.",
        ),
    ] = None,
    most_missing: Annotated[
        float, typer.Option(min=0, max=1, help="Share of edits that may stay without a score; more is an error.")
    ] = 0.1,
    batch: Annotated[int, typer.Option(min=1, help="Edits that the judge is given at once.")] = 64,
    passes: Passes = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU where there is one.")] = None,
    processes: Processes = 1,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Score any number of edits: per axis mean and sigma, fused, overall, reward, or why the score is missing.

    Rows come in the input's order. Stopped or killed, the same call goes on where it was and gives the same file. A
    picture that cannot be read costs its own row alone.

    For example: editloop score --model models:/edit-reward@champion --input edits.jsonl --out scores.parquet
    """
    from editloop.models.judge_protocol import wording_note, wording_of
    from editloop.scoring.score_file import ScoringSettings, score_edits

    if output.suffix != ".parquet":
        raise EditLoopError(f"--out {output}: the scores are a .parquet file.")
    settings = ScoringSettings(best_of=best_of, most_missing=most_missing, batch_edits=batch)
    with opened_judge(fetch_model(model, services), device, passes, processes) as judge:
        summary = score_edits(judge, source, output, settings)
    title = f"{judge.name} {judge.version[:12]}{wording_note(wording_of(judge))}"
    print(f"{title}: {summary.edits} edits of {summary.tasks} tasks, {summary.missing} missing")
    for reason, count in list(summary.reasons.items())[:10]:
        print(f"  {count} x {reason}")
    print(output)
    if best_of is not None:
        from editloop.scoring.best_of import keep_best

        folder = output.with_name(f"{output.stem}-best")
        best = keep_best(source, output, best_of, folder)
        print(f"{folder}: the best of up to {best_of} candidates of {best.tasks} tasks; {best.without} have none")


@contextmanager
def opened_judge(address: str, device: str | None, passes: int | None, processes: int) -> "Iterator[Judge]":
    """Open a judge for a command.

    Args:
        address: The judge's address.
        device: Device of a local model; None takes the first GPU, or the CPU where there is none.
        passes: K of EditScore's Avg@K; None takes the model's own.
        processes: Processes that share its weights.

    Raises:
        EditLoopError: The judge cannot be opened, or a device is given for several processes.
    """
    if processes == 1:
        from editloop.scoring.opening import open_judge

        yield open_judge(address, device=device, passes=passes)
        return
    if device is not None:
        raise EditLoopError(f"--device {device} with --processes {processes}: each process takes a GPU; leave it out.")
    from editloop.training.spread_judge import spread_judge

    with spread_judge(address, processes=processes, passes=passes) as judge:
        yield judge


def serve_command(
    model: Model,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but a loopback address needs EDITLOOP_SERVE_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8420,
    workers: Annotated[int, typer.Option(help="Processes with a model each; several GPUs are taken in turn.")] = 1,
    max_batch: Annotated[int, typer.Option(help="Edits that a worker is given at once.")] = 32,
    window_ms: Annotated[
        float, typer.Option(help="Milliseconds that a request waits for others to be batched with, when all is idle.")
    ] = 5.0,
    queue: Annotated[int, typer.Option(help="Edits that may wait; beyond, the answer is 429 and a time.")] = 512,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Reverse proxy whose X-Forwarded-For names the clients; again for another."),
    ] = None,
    passes: Passes = None,
    services: Services = DEFAULT_SERVICES,
) -> None:
    """Serve a model's scores over HTTP, until Ctrl-C or SIGTERM; what was taken by then is finished.

    POST /v1/score takes {"instruction", "source", "edits"}, pictures as base64 of PNG, JPEG, WebP or AVIF. Requests of
    one task are judged as one group, so that its source and instruction are read once. Also /v1/model, /healthz,
    /readyz, /metrics (Prometheus), /openapi.json. Clients show EDITLOOP_SERVE_TOKEN as a bearer token.

    Ask it with `editloop score --model http://HOST:PORT ...`, or from Python:
    editloop.scoring.opening.open_judge("http://HOST:PORT").judge(groups)

    For example: editloop serve --model models:/edit-reward@champion --port 8420
    """
    from pydantic import ValidationError

    from editloop.scoring.server_settings import ServeSettings
    from editloop.scoring.serving.server import serve as serve_model

    try:
        settings = ServeSettings(
            host=host,
            port=port,
            workers=workers,
            passes=passes,
            max_batch=max_batch,
            window_ms=window_ms,
            queue=queue,
            proxies=proxy or (),
        )
    except ValidationError as error:
        wrong = "; ".join(
            f"--{str(fault['loc'][0]).replace('_', '-')} {fault['input']}: {fault['msg']}" for fault in error.errors()
        )
        raise EditLoopError(f"{wrong}.") from None
    serve_model(fetch_model(model, services), settings)


def fetch_model(model: str, services: Path) -> str:
    """Return the folder of a registered model; any other address is returned as it is.

    An alias is resolved once, so that a move of the alias does not change the model during the command.

    Args:
        model: Address of the model.
        services: Folder whose services are used where MLFLOW_TRACKING_URI is not set.

    Raises:
        EditLoopError: There is no such model or there are no services, or the model's files are not those that were
            registered.
    """
    if not model.startswith("models:/"):
        return model
    from editloop.scoring.opening import find_local

    with services_of(services):
        folder = find_local(model).folder
    print(f"{model} is {folder}")
    return str(folder)
