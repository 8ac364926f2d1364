"""How often a gate promotes: models that are no better (it must not), and models that are better by so much (power).

Judged pairs are drawn as they come in practice: several pairs a task, a task's difficulty shared by its pairs and by
both models, so that neither pairs of a task nor the two models are independent.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from editloop.evaluation.gates.decision import SuiteMeasurement, decide
from editloop.evaluation.gates.settings import GateSettings, SuiteGate
from editloop.evaluation.outcomes import Outcomes

PAIRS_A_TASK = 6
ACCURACY = 0.75
"""Of both models, where they are equal."""
TASK_SD, PAIR_SD, MODEL_TASK_SD = 0.4, 0.7, 0.35
"""Standard deviations, of 1 in all, of the difficulty that is the task's and both models', of that which is the pair's
and both models', and of what a model has of its own with all pairs of a task; what is left is its own, pair by pair."""
SIMULATIONS = 500
RESAMPLES = 2000


class VerdictRates(NamedTuple):
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


def _simulated_models(
    tasks: int, gain: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Two models on `tasks` tasks of PAIRS_A_TASK pairs: right or wrong of the new one and the old, (N,) each, and
    each pair's task. Expected accuracies are ACCURACY + gain and ACCURACY."""
    from scipy.stats import norm

    task = np.repeat(rng.normal(0, TASK_SD, tasks), PAIRS_A_TASK)
    shared_difficulty = task + rng.normal(0, PAIR_SD, len(task))
    own_sd = np.sqrt(1 - TASK_SD**2 - PAIR_SD**2 - MODEL_TASK_SD**2)

    def judged(accuracy: float) -> NDArray[np.float64]:
        own_difficulty = np.repeat(rng.normal(0, MODEL_TASK_SD, tasks), PAIRS_A_TASK) + rng.normal(0, own_sd, len(task))
        return (shared_difficulty + own_difficulty < norm.ppf(accuracy)).astype(np.float64)

    new, old = judged(ACCURACY + gain), judged(ACCURACY)
    return new, old, tuple(f"task {index // PAIRS_A_TASK}" for index in range(len(task)))


def _simulated_verdicts(settings: GateSettings, tasks: int, gain: float, simulated: int, seed: int) -> Iterator[str]:
    """The gate's verdict on each of so many simulated comparisons."""
    suite = SuiteGate(suite="heldout", margin=settings.suites[0].margin if settings.suites else 0.0, minimum=1)
    for number in range(simulated):
        rng = np.random.default_rng([seed, number, tasks, int(1e6 * gain)])
        new, old, clusters = _simulated_models(tasks, gain, rng)
        keys = tuple(map(str, range(len(new))))
        slices = tuple(f"kind {index // PAIRS_A_TASK % 5}" for index in range(len(new)))
        none_missing = np.zeros(len(new), dtype=bool)
        outcomes = (Outcomes("heldout", keys, clusters, slices, right, none_missing) for right in (new, old))
        yield str(decide(settings, [SuiteMeasurement(suite, *outcomes)], against="an equal", seed=number)["verdict"])


def simulate_gate(
    settings: GateSettings,
    *,
    tasks: Sequence[int] = (50, 100, 200),
    gains: Sequence[float] = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08),
    simulated: int = SIMULATIONS,
    seed: int = 0,
) -> list[VerdictRates]:
    """Rates of every size and true gain, by the gate's own alpha, margin and slices; with fewer resamples."""
    from scipy.stats import binomtest

    quick = settings.model_copy(update={"resamples": RESAMPLES, "always": False})
    rates = []
    for size, gain in track([(size, gain) for size in tasks for gain in gains], description="gates simulated"):
        gate_verdicts = list(_simulated_verdicts(quick, size, gain, simulated, seed))
        ends = binomtest(gate_verdicts.count("promote"), simulated).proportion_ci(method="exact")
        promoted, held, rejected = (gate_verdicts.count(word) / simulated for word in ("promote", "hold", "reject"))
        rates.append(VerdictRates(size, gain, simulated, promoted, held, rejected, (float(ends.low), float(ends.high))))
    return rates


def rates_markdown(settings: GateSettings, rates: Sequence[VerdictRates]) -> str:
    """The rates as Markdown."""
    lines = [
        f"Gate `{settings.name}`: {rates[0].simulated} simulated comparisons a row; a model that is no better may be "
        f"promoted in {settings.alpha / 2:.1%} of cases.",
        "",
        "| tasks | pairs | true gain | promoted (95 %) | held | rejected |",
        "|---|---|---|---|---|---|",
    ]
    for rate in rates:
        low, high = rate.interval
        lines.append(
            f"| {rate.tasks} | {rate.tasks * PAIRS_A_TASK} | {100 * rate.gain:+.0f} points | {rate.promoted:.1%} "
            f"({low:.1%} to {high:.1%}) | {rate.held:.1%} | {rate.rejected:.1%} |"
        )
    return "\n".join(lines) + "\n"


def power_plot(settings: GateSettings, rates: Sequence[VerdictRates]) -> bytes:
    """Share promoted over the true gain, a line a size, as a PNG."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = ["#2f6fc4", "#7446bf", "#1f8a4c", "#b26a00"]
    for index, size in enumerate(sorted({rate.tasks for rate in rates})):
        size_rates = [rate for rate in rates if rate.tasks == size]
        gains = [100 * rate.gain for rate in size_rates]
        colour = colours[index % len(colours)]
        axes.plot(
            gains, [rate.promoted for rate in size_rates], "o-", color=colour, label=f"{size * PAIRS_A_TASK} pairs"
        )
        axes.fill_between(
            gains,
            [rate.interval[0] for rate in size_rates],
            [rate.interval[1] for rate in size_rates],
            color=colour,
            alpha=0.15,
            lw=0,
        )
    axes.axhline(settings.alpha / 2, color="#c23a3a", lw=1, ls="--")
    axes.text(
        max(100 * rate.gain for rate in rates),
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


def rates_json(settings: GateSettings, rates: Sequence[VerdictRates]) -> dict[str, Any]:
    """The same for programs."""
    return {"gate": settings.model_dump(mode="json"), "rates": [rate._asdict() for rate in rates]}
