"""The papers' claims at laptop scale: measured on drawn scenes, seed by seed, and told with intervals.

editloop claims --out runs/claims
"""

from collections.abc import Callable, Sequence
from typing import Any

from components.claims.page import claims_page, document
from components.claims.running import Key, Outcome, State, planned, run_pieces, waiting_pieces
from components.claims.statements import CLAIMS, Claim
from components.claims.statistics import Estimated, Seed, estimated, shown, verdict
from components.claims.store import Store
from infra.content import write_file, write_json
from infra.errors import EditLoopError


def plan(store: Store, numbers: Sequence[int], seeds: int, processes: int) -> tuple[list[Key], float]:
    """The pieces that are not done yet, and the seconds that they take by plan."""
    names = [name for claim in _asked(numbers) for name in claim.pieces]
    waiting = waiting_pieces(store, names, range(seeds))
    return waiting, planned(store, waiting, processes)


def measure_claims(
    store: Store, numbers: Sequence[int], *, seeds: int, processes: int, seconds: float, tell: Callable[[State], None]
) -> dict[str, Any]:
    """Make what is missing of the claims of these numbers (none: all), and tell what the figures say.

    Returns what `claims.json` in the store's folder holds; `claims.md` and `page.html` have it as pages, for
    all claims that there are figures of. Raises EditLoopError after everything else is done when a piece has failed.
    """
    waiting, _ = plan(store, numbers, seeds, processes)
    try:
        outcome = run_pieces(store, waiting, processes=processes, seconds=seconds, tell=tell)
    finally:
        found = write_claims(store, seeds)
    _refuse_failed(outcome)
    return found


def write_claims(store: Store, seeds: int) -> dict[str, Any]:
    """Write what there is of all claims into the store's folder: `claims.json`, `claims.md`, `page.html`."""
    found: dict[str, Any] = {"seeds": seeds, "settings": store.settings.model_dump(mode="json"),
                             "claims": [told(claim, finished(store, claim, seeds)) for claim in CLAIMS],
                             "took": took(store, seeds)}  # fmt: skip
    write_json(store.output / "claims.json", found)
    write_file(store.output / "claims.md", document(found))
    write_file(store.output / "page.html", claims_page(found))
    return found


def finished(store: Store, claim: Claim, seeds: int) -> list[Seed]:
    """The figures of the seeds that have all pieces that a claim's verdict hangs on."""
    rows: list[Seed] = []
    for seed in range(seeds):
        found = {name: one for name in claim.pieces if (one := store.figures(name, seed)) is not None}
        if all(name in found or store.pieces[name].beside for name in claim.pieces):
            rows.append(found)
    return rows


def took(store: Store, seeds: int) -> list[dict[str, Any]]:
    """What each piece took, in the mean over the seeds that have it: seconds by the clock and of processors."""
    rows = []
    for name in store.pieces:
        spent = [one for seed in range(seeds) if (one := store.spent(name, seed))]
        if spent:
            seconds, processor = (sum(column) / len(spent) for column in zip(*spent, strict=True))
            rows.append({"piece": name, "seeds": len(spent), "seconds": seconds, "processor_seconds": processor})
    return rows


def told(claim: Claim, seeds: Sequence[Seed]) -> dict[str, Any]:
    """A claim as `claims.json` has it: verdict, contrasts and figures with their intervals, lines of its plot."""
    contrasts = [estimated(one, seeds) for one in claim.contrasts]
    return {
        "number": claim.number,
        "says": claim.says,
        "how": claim.how,
        "verdict": verdict(contrasts),
        "seeds": len(seeds),
        "contrasts": [_entry(one, signed=True) for one in contrasts],
        "figures": [_entry(estimated(one, seeds), signed=False) for one in claim.figures],
        "places": list(claim.places),
        "traces": [
            {"label": trace.label, "points": [_entry(estimated(one, seeds), signed=False) for one in trace.figures]}
            for trace in claim.traces
        ],
    }


def _entry(one: Estimated, *, signed: bool) -> dict[str, Any]:
    return one._asdict() | {"shown": shown(one, signed)}


def _asked(numbers: Sequence[int]) -> list[Claim]:
    known = {claim.number: claim for claim in CLAIMS}
    if unknown := sorted(set(numbers) - set(known)):
        raise EditLoopError(f"claims {', '.join(map(str, unknown))}: there are {', '.join(map(str, known))}.")
    return [known[number] for number in numbers] if numbers else list(CLAIMS)


def _refuse_failed(outcome: Outcome) -> None:
    if outcome.failed:
        logs = "; ".join(f"{name} of seed {seed}: {path}" for (name, seed), path in outcome.failed.items())
        raise EditLoopError(
            f"{len(outcome.failed)} pieces failed, and {len(outcome.waiting)} were not begun. Their logs say why: "
            f"{logs}. The same call makes them again; what is measured stays."
        )
