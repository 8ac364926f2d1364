"""The gate: promote on evidence, hold without it, reject on evidence against."""

from typing import Any


def decide(
    what: str, difference: float, low: float, high: float, *, against: str, margin: float = 0.0
) -> dict[str, Any]:
    """Verdict on a paired difference (new - old) with its 95 % interval.

    `promote` where the whole interval lies above -margin, `reject` where it lies below it, `hold` between. A NaN
    (nothing to compare on) is held.
    """
    figures = f"{what} {difference:+.3f} against {against}, 95 % interval {low:+.3f} to {high:+.3f}"
    if low > -margin:
        verdict, why = "promote", f"the interval lies above {-margin:+.3f}"
    elif high < -margin:
        verdict, why = "reject", f"the interval lies below {-margin:+.3f}"
    else:
        verdict, why = "hold", f"the interval does not lie above {-margin:+.3f}; more data would decide"
    return {
        "verdict": verdict,
        "reasons": [f"{figures}: {why}."],
        "difference": difference,
        "ci95": [low, high],
        "margin": margin,
        "against": against,
    }
