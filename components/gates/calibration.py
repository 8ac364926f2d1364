"""How often a gate promotes: models that are no better (it must not), and models that are better by so much (power).

Judged pairs are drawn as they come in practice: several pairs a task, a task's difficulty shared by its pairs and by
both models, so that neither pairs of a task nor the two models are independent.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from components.gates.decision import Measured, decide
from components.gates.settings import GateSettings, SuiteGate
from components.suites.outcomes import Outcomes

PAIRS_A_TASK = 6
ACCURACY = 0.75
"""Of both models, where they are equal."""
OF_TASK, OF_PAIR, OWN_OF_TASK = 0.4, 0.7, 0.35
"""Standard deviations, of 1 in all, of the difficulty that is the task's and both models', of that which is the pair's
and both models', and of what a model has of its own with all pairs of a task; what is left is its own, pair by pair."""
SIMULATED = 500
RESAMPLES = 2000


class Rate(NamedTuple):
    """How often verdicts came of simulated pairs."""

    tasks: int
    gain: float
    """True difference of accuracy."""
    simulated: int
    promoted: float
    held: float
    rejected: float
    interval: tuple[float, float]
    """95 % interval of `promoted` (Clopper-Pearson)."""


def equal_and_better(
    tasks: int, gain: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Two models on `tasks` tasks of PAIRS_A_TASK pairs: right or wrong of the new one and the old, (N,) each, and
    each pair's task. Expected accuracies are ACCURACY + gain and ACCURACY."""
    from scipy.stats import norm

    task = np.repeat(rng.normal(0, OF_TASK, tasks), PAIRS_A_TASK)
    shared = task + rng.normal(0, OF_PAIR, len(task))
    left = np.sqrt(1 - OF_TASK**2 - OF_PAIR**2 - OWN_OF_TASK**2)

    def judged(accuracy: float) -> NDArray[np.float64]:
        own = np.repeat(rng.normal(0, OWN_OF_TASK, tasks), PAIRS_A_TASK) + rng.normal(0, left, len(task))
        return (shared + own < norm.ppf(accuracy)).astype(np.float64)

    new, old = judged(ACCURACY + gain), judged(ACCURACY)
    return new, old, tuple(f"task {place // PAIRS_A_TASK}" for place in range(len(task)))


def verdicts(settings: GateSettings, tasks: int, gain: float, simulated: int, seed: int) -> Iterator[str]:
    """The gate's verdict on each of so many simulated comparisons."""
    suite = SuiteGate(suite="heldout", margin=settings.suites[0].margin if settings.suites else 0.0, minimum=1)
    for number in range(simulated):
        rng = np.random.default_rng([seed, number, tasks, int(1e6 * gain)])
        new, old, clusters = equal_and_better(tasks, gain, rng)
        keys = tuple(map(str, range(len(new))))
        slices = tuple(f"kind {place // PAIRS_A_TASK % 5}" for place in range(len(new)))
        nothing = np.zeros(len(new), dtype=bool)
        judged = (Outcomes("heldout", keys, clusters, slices, right, nothing) for right in (new, old))
        yield str(decide(settings, [Measured(suite, *judged)], against="an equal", seed=number)["verdict"])


def calibrate(
    settings: GateSettings,
    *,
    tasks: Sequence[int] = (50, 100, 200),
    gains: Sequence[float] = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08),
    simulated: int = SIMULATED,
    seed: int = 0,
) -> list[Rate]:
    """Rates of every size and true gain, by the gate's own alpha, margin and slices; with fewer resamples."""
    from scipy.stats import binomtest

    quick = settings.model_copy(update={"resamples": RESAMPLES, "always": False})
    found = []
    for size, gain in track([(size, gain) for size in tasks for gain in gains], description="gates simulated"):
        said = list(verdicts(quick, size, gain, simulated, seed))
        ends = binomtest(said.count("promote"), simulated).proportion_ci(method="exact")
        promoted, held, rejected = (said.count(word) / simulated for word in ("promote", "hold", "reject"))
        found.append(Rate(size, gain, simulated, promoted, held, rejected, (float(ends.low), float(ends.high))))
    return found


def table(settings: GateSettings, rates: Sequence[Rate]) -> str:
    """The rates as Markdown."""
    lines = [
        f"Gate `{settings.name}`: {rates[0].simulated} simulated comparisons a row; a model that is no better may be "
        f"promoted in {settings.alpha / 2:.1%} of cases.",
        "",
        "| tasks | pairs | true gain | promoted (95 %) | held | rejected |",
        "|---|---|---|---|---|---|",
    ]
    for one in rates:
        low, high = one.interval
        lines.append(
            f"| {one.tasks} | {one.tasks * PAIRS_A_TASK} | {100 * one.gain:+.0f} points | {one.promoted:.1%} "
            f"({low:.1%} to {high:.1%}) | {one.held:.1%} | {one.rejected:.1%} |"
        )
    return "\n".join(lines) + "\n"


def picture(settings: GateSettings, rates: Sequence[Rate]) -> bytes:
    """Share promoted over the true gain, a line a size, as a PNG."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = ["#2f6fc4", "#7446bf", "#1f8a4c", "#b26a00"]
    for place, size in enumerate(sorted({one.tasks for one in rates})):
        line = [one for one in rates if one.tasks == size]
        gains = [100 * one.gain for one in line]
        colour = colours[place % len(colours)]
        axes.plot(gains, [one.promoted for one in line], "o-", color=colour, label=f"{size * PAIRS_A_TASK} pairs")
        axes.fill_between(
            gains, [one.interval[0] for one in line], [one.interval[1] for one in line], color=colour, alpha=0.15, lw=0
        )
    axes.axhline(settings.alpha / 2, color="#c23a3a", lw=1, ls="--")
    axes.text(
        max(100 * one.gain for one in rates),
        settings.alpha / 2 + 0.02,
        f"nominal {settings.alpha / 2:.1%}",
        color="#c23a3a",
        ha="right",
    )
    axes.set(xlabel="true gain in accuracy (points)", ylabel="share promoted", ylim=(-0.02, 1.02))
    axes.set_title(f"What gate '{settings.name}' promotes ({rates[0].simulated} simulations a point)", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def as_json(settings: GateSettings, rates: Sequence[Rate]) -> dict[str, Any]:
    """The same for programs."""
    return {"gate": settings.model_dump(mode="json"), "rates": [one._asdict() for one in rates]}
