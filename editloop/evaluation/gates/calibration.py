"""Simulate how often a gate promotes a model that is no better, and one that is better by a known gain.

Judged pairs are drawn as they come in practice, with several pairs per task. Pairs of a task share its difficulty, and
so do the two models. Hence neither the pairs of a task nor the two models are independent.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.evaluation.gates.decision import SuiteMeasurement, decide
from editloop.evaluation.gates.settings import GateSettings, SuiteGate
from editloop.evaluation.outcomes import Outcomes
from editloop.progress import track

PAIRS_A_TASK = 6
"""Judged pairs per task."""
ACCURACY = 0.75
"""Accuracy of the old model; the new one's is higher by the gain."""
TASK_SD, PAIR_SD, MODEL_TASK_SD = 0.4, 0.7, 0.35
"""Standard deviations of the components of difficulty, whose variances sum to 1: of a task, shared by both models; of a
pair, shared by both models; and of a task for one model. What is left is a model's own, pair by pair."""
HELDOUT = SuiteGate(suite="heldout")
"""The suite of a gate that names none."""
SIMULATIONS = 500
"""Simulated comparisons for each size and gain."""
RESAMPLES = 2000
"""Resamples of the bootstrap in a simulation."""


class VerdictRates(NamedTuple):
    """How often each verdict came in the simulated comparisons of one size and gain."""

    tasks: int
    gain: float
    """True difference of accuracy."""
    simulated: int
    """Number of simulated comparisons."""
    promoted: float
    """Share of the comparisons with this verdict, 0..1; likewise `held` and `rejected`."""
    held: float
    rejected: float
    interval: tuple[float, float]
    """95 % interval of `promoted` (Clopper-Pearson)."""


def _simulated_models(
    tasks: int, gain: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Simulate two models on `tasks` tasks of PAIRS_A_TASK pairs.

    Returns 1 for right and 0 for wrong of the new model and of the old one, (N,) each, and the task of each pair.
    Expected accuracies are ACCURACY + gain and ACCURACY.
    """
    from scipy.stats import norm

    task = np.repeat(rng.normal(0, TASK_SD, tasks), PAIRS_A_TASK)
    shared_difficulty = task + rng.normal(0, PAIR_SD, len(task))
    own_sd = np.sqrt(1 - TASK_SD**2 - PAIR_SD**2 - MODEL_TASK_SD**2)

    def judged(accuracy: float) -> NDArray[np.float64]:
        own_difficulty = np.repeat(rng.normal(0, MODEL_TASK_SD, tasks), PAIRS_A_TASK) + rng.normal(0, own_sd, len(task))
        right: NDArray[np.float64] = (shared_difficulty + own_difficulty < norm.ppf(accuracy)).astype(np.float64)
        return right

    new, old = judged(ACCURACY + gain), judged(ACCURACY)
    return new, old, tuple(f"task {index // PAIRS_A_TASK}" for index in range(len(task)))


def _simulated_verdicts(settings: GateSettings, tasks: int, gain: float, simulated: int, seed: int) -> Iterator[str]:
    """Yield the gate's verdict on each simulated comparison."""
    deciding = [suite for suite in settings.suites if suite.required] or [settings.right_edits or HELDOUT]
    suites = [suite.model_copy(update={"minimum": 1}) for suite in deciding]
    for number in range(simulated):
        rng = np.random.default_rng([seed, number, tasks, int(1e6 * gain)])
        measured = [_simulated_measurement(suite, tasks, gain, rng) for suite in suites]
        yield str(decide(settings, measured, against="an equal", seed=number)["verdict"])


def _simulated_measurement(suite: SuiteGate, tasks: int, gain: float, rng: np.random.Generator) -> SuiteMeasurement:
    """Simulate both models on a suite of its own tasks, of five kinds."""
    new, old, clusters = _simulated_models(tasks, gain, rng)
    keys = tuple(map(str, range(len(new))))
    slices = tuple(f"kind {index // PAIRS_A_TASK % 5}" for index in range(len(new)))
    none_missing = np.zeros(len(new), dtype=bool)
    outcomes = (Outcomes(suite.suite, keys, clusters, slices, right, none_missing) for right in (new, old))
    return SuiteMeasurement(suite, *outcomes)


def simulate_gate(
    settings: GateSettings,
    *,
    tasks: Sequence[int] = (50, 100, 200),
    gains: Sequence[float] = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08),
    simulated: int = SIMULATIONS,
    seed: int = 0,
) -> list[VerdictRates]:
    """Simulate a gate's verdicts for each size and true gain.

    The gate's own alpha and slice rules apply, and the margins of the suites that decide. Each suite has tasks of its
    own, and the same gain. Independent judges and requirements beside the suites are not simulated. The bootstrap takes
    RESAMPLES resamples to be fast.

    Args:
        settings: The gate.
        tasks: Sizes of the simulated suites, in tasks of PAIRS_A_TASK pairs.
        gains: True differences of accuracy.
        simulated: Number of comparisons for each size and gain.
        seed: Seed of the simulation.

    Returns:
        The rates of each size and gain.
    """
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
    """Return the rates as a Markdown table.

    Args:
        settings: The gate.
        rates: Its rates; at least one.
    """
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
    """Plot the share promoted over the true gain, with one line per size.

    Args:
        settings: The gate.
        rates: Its rates; at least one.

    Returns:
        The bytes of a PNG file.
    """
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
        promoted, label = [rate.promoted for rate in size_rates], f"{size * PAIRS_A_TASK} pairs"
        low, high = zip(*(rate.interval for rate in size_rates), strict=True)
        axes.plot(gains, promoted, "o-", color=colour, label=label)
        axes.fill_between(gains, low, high, color=colour, alpha=0.15, lw=0)
    nominal, right = settings.alpha / 2, max(100 * rate.gain for rate in rates)
    axes.axhline(nominal, color="#c23a3a", lw=1, ls="--")
    axes.text(right, nominal + 0.02, f"nominal {nominal:.1%}", color="#c23a3a", ha="right")
    axes.set(xlabel="true gain in accuracy (points)", ylabel="share promoted", ylim=(-0.02, 1.02))
    axes.set_title(f"What gate '{settings.name}' promotes ({rates[0].simulated} simulations a point)", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def rates_json(settings: GateSettings, rates: Sequence[VerdictRates]) -> dict[str, Any]:
    """Return the gate and its rates as JSON values.

    Args:
        settings: The gate.
        rates: Its rates.
    """
    return {"gate": settings.model_dump(mode="json"), "rates": [rate._asdict() for rate in rates]}
