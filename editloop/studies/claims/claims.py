"""Measures the papers' claims at laptop scale: on drawn scenes, over several seeds, with confidence intervals.

editloop claims --out runs/claims
"""

from collections.abc import Callable, Sequence
from typing import Any

from editloop.content import write_file, write_json
from editloop.errors import EditLoopError
from editloop.studies.claims.page import claims_document, claims_page
from editloop.studies.claims.running import (
    PieceKey,
    PiecesProgress,
    UnfinishedPieces,
    planned_seconds,
    run_pieces,
    waiting_pieces,
)
from editloop.studies.claims.statements import CLAIMS, Claim
from editloop.studies.claims.statistics import Seed, SeedEstimate, claim_verdict, estimate_over_seeds, format_estimate
from editloop.studies.claims.store import Store


def plan_claims(store: Store, numbers: Sequence[int], seeds: int, processes: int) -> tuple[list[PieceKey], float]:
    """Return the pieces that are not done yet, and the planned time for them.

    Args:
        store: The results so far.
        numbers: Numbers of the claims; empty: all claims.
        seeds: Number of seeds.
        processes: Number of pieces that run at a time.

    Returns:
        The pieces, each after those it needs, and the seconds that they take.

    Raises:
        EditLoopError: There is no claim of one of the numbers.
    """
    names = [name for claim in _select_claims(numbers) for name in claim.pieces]
    waiting = waiting_pieces(store, names, range(seeds))
    return waiting, planned_seconds(store, waiting, processes)


def measure_claims(
    store: Store,
    numbers: Sequence[int],
    *,
    seeds: int,
    processes: int,
    seconds: float,
    tell: Callable[[PiecesProgress], None],
) -> dict[str, Any]:
    """Run the pieces that claims still lack, and write the report of all claims, see `write_claims`.

    The report is also written if the call is interrupted or a piece fails.

    Args:
        store: The results so far.
        numbers: Numbers of the claims; empty: all claims.
        seeds: Number of seeds.
        processes: Number of pieces that run at a time.
        seconds: Time limit. A piece that is not expected to end within it is not started.
        tell: Called with the progress whenever a piece starts or ends.

    Returns:
        The content of `claims.json`.

    Raises:
        EditLoopError: There is no claim of one of the numbers, or a piece failed (raised after the others have run).
    """
    waiting, _ = plan_claims(store, numbers, seeds, processes)
    try:
        unfinished = run_pieces(store, waiting, processes=processes, seconds=seconds, tell=tell)
    finally:
        report = write_claims(store, seeds)
    _refuse_failed(unfinished)
    return report


def write_claims(store: Store, seeds: int) -> dict[str, Any]:
    """Write the report of all claims, as far as they are measured, to `claims.json`, `claims.md` and `page.html`.

    Args:
        store: The results; the files are written to its folder.
        seeds: Number of seeds to read, from 0.

    Returns:
        The content of `claims.json`.
    """
    report: dict[str, Any] = {
        "seeds": seeds,
        "settings": store.settings.model_dump(mode="json"),
        "claims": [claim_record(claim, complete_seeds(store, claim, seeds)) for claim in CLAIMS],
        "took": piece_costs(store, seeds),
    }
    write_json(store.output / "claims.json", report)
    write_file(store.output / "claims.md", claims_document(report))
    write_file(store.output / "page.html", claims_page(report))
    return report


def complete_seeds(store: Store, claim: Claim, seeds: int) -> list[Seed]:
    """Return the figures of the seeds that have all pieces on which a claim's verdict depends.

    Args:
        store: The results.
        claim: The claim.
        seeds: Number of seeds to read, from 0.

    Returns:
        For each such seed: figures by piece, including the optional pieces that are done.
    """
    rows: list[Seed] = []
    for seed in range(seeds):
        seed_figures = {
            name: piece_figures for name in claim.pieces if (piece_figures := store.figures(name, seed)) is not None
        }
        if all(name in seed_figures or store.pieces[name].optional for name in claim.pieces):
            rows.append(seed_figures)
    return rows


def piece_costs(store: Store, seeds: int) -> list[dict[str, Any]]:
    """Return the cost of each piece, mean over the seeds that have it.

    Args:
        store: The results.
        seeds: Number of seeds to read, from 0.

    Returns:
        For each piece that is done for a seed: piece (name), seeds (number), seconds (elapsed time) and
        processor_seconds.
    """
    rows = []
    for name in store.pieces:
        costs = [cost for seed in range(seeds) if (cost := store.spent(name, seed))]
        if costs:
            seconds, processor = (sum(column) / len(costs) for column in zip(*costs, strict=True))
            rows.append({"piece": name, "seeds": len(costs), "seconds": seconds, "processor_seconds": processor})
    return rows


def claim_record(claim: Claim, seeds: Sequence[Seed]) -> dict[str, Any]:
    """Return a claim's record in `claims.json`: verdict, contrasts and figures with intervals, lines of the plot.

    Args:
        claim: The claim.
        seeds: Figures of the seeds, from `complete_seeds`.
    """
    contrasts = [estimate_over_seeds(contrast, seeds) for contrast in claim.contrasts]
    return {
        "number": claim.number,
        "says": claim.says,
        "how": claim.how,
        "verdict": claim_verdict(contrasts),
        "seeds": len(seeds),
        "contrasts": [_estimate_record(contrast, signed=True) for contrast in contrasts],
        "figures": [_estimate_record(estimate_over_seeds(figure, seeds), signed=False) for figure in claim.figures],
        "places": list(claim.places),
        "traces": [
            {
                "label": trace.label,
                "points": [
                    _estimate_record(estimate_over_seeds(figure, seeds), signed=False) for figure in trace.figures
                ],
            }
            for trace in claim.traces
        ],
    }


def _estimate_record(estimate: SeedEstimate, *, signed: bool) -> dict[str, Any]:
    return estimate._asdict() | {"shown": format_estimate(estimate, signed)}


def _select_claims(numbers: Sequence[int]) -> list[Claim]:
    claims_by_number = {claim.number: claim for claim in CLAIMS}
    if unknown := sorted(set(numbers) - set(claims_by_number)):
        raise EditLoopError(
            f"claims {', '.join(map(str, unknown))}: there are {', '.join(map(str, claims_by_number))}."
        )
    return [claims_by_number[number] for number in numbers] if numbers else list(CLAIMS)


def _refuse_failed(unfinished: UnfinishedPieces) -> None:
    if unfinished.failed:
        logs = "; ".join(f"{name} of seed {seed}: {path}" for (name, seed), path in unfinished.failed.items())
        raise EditLoopError(
            f"{len(unfinished.failed)} pieces failed, and {len(unfinished.waiting)} were not begun. Their logs say "
            "why: "
            f"{logs}. The same call makes them again; what is measured stays."
        )
