"""The demo's report: `report.html`, one file with everything that it shows.

write_report(Path("runs/demo"))
"""

import base64
import io
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from editloop.content import write_file
from editloop.errors import EditLoopError
from editloop.pages.plots import (
    AMBER,
    BLUE,
    GREEN,
    SOFT,
    VIOLET,
    Curve,
    IntervalRow,
    ReferenceLine,
    curves,
    finite_or_none,
    intervals,
    series,
)
from editloop.pages.templates import render
from pipelines.summary import CHAMPIONS

SMALL_SIDE = 96
"""Pixels. Images up to this side are inlined as they are and enlarged without smoothing; larger ones become JPEG."""
LARGEST_SIDE = 256
"""Pixels. Larger images are reduced to this side."""

VERDICTS = {
    "promote": "Promoted: it is the champion now.",
    "hold": "Held: a challenger, the champion stays.",
    "reject": "Rejected: it does not stay in the race.",
}


def write_report(out: Path) -> Path:
    """Write `out`/report.html, and return its path.

    Reads `out`/summary.json, and from `out`/report-data (which `gather_report_data` fills) each of these files that
    exists:

    - agreement.json: {"if": {"alpha", "ci95", "items", "raters"}, "vq": ...}
    - judged.json and judged/*.png: tasks, candidates and the experts' mean ratings
    - reward-training.json: {"steps": [{"step", "loss"}], "evaluations": [{"step", "loss", "accuracy"}]}
    - benchmark.json: {"accuracy_oracle", "ci95", "accuracy_base", "accuracy_labels", "accuracy_labels_ci95",
      "accuracy_labels_base", "within_editor", "pairs", "clear_pairs"}
    - reward-gate.json, editor-gate.json: {"verdict", "reasons"}; promotion.json: {"name", "version"}
    - rl-training.json: {"steps": [{"step", "reward", "kl", "missing"}], "evaluations": [{"step", "reward", "oracle",
      "right", "preservation", "diversity", each with _low and _high}], "reason": why it was stopped early}
    - evaluation.json: {"base", "tuned", "uplift", "ci95", "tasks", "axes": {"base": {"if", "vq"}, "tuned": ...},
      "by_task": {kind: {"base", "tuned"}}}
    - contact-sheet.json and contact-sheet/*.png: {"edits": [{"instruction", "source", "references", "base", "tuned",
      "base_right", "tuned_right"}]}; without it contact-sheet.png

    A section whose file is missing says so.

    Args:
        out: Folder of the demo.

    Raises:
        EditLoopError: summary.json is missing or empty, or a file is not JSON.
    """
    summary = _read_json(out / "summary.json")
    if not summary:
        raise EditLoopError(f"{out}: no summary.json; the report is made from a run of `editloop demo --out {out}`.")
    data = out / "report-data"
    names = ("agreement", "judged", "reward-training", "benchmark", "reward-gate", "promotion", "rl-training")
    read = {name: _read_json(data / f"{name}.json") for name in (*names, "evaluation", "editor-gate", "contact-sheet")}

    benchmark = read["benchmark"] | _section(summary, "reward")
    evaluation = read["evaluation"] | _section(summary, "editor")
    stages = stage_rows(summary)
    gates, verify = _section(summary, "gate"), _section(summary, "verify")
    pictures = {"picture": partial(_picture, data), "sheet": partial(_picture, data, bounded=False)}
    figures = {"percent": percent, "points": points, "figure": figure, "seconds": seconds, "interval": interval_text}
    html = render(
        Path(__file__).with_name("report.html.j2"),
        figures | pictures,
        loop=Markup((Path(__file__).parent / "loop.svg").read_text()),
        summary=summary,
        headline=headline(summary),
        experts=_count(_section(summary, "annotation").get("annotators")),
        stages=stages,
        together=sum(finite_or_none(row.get("seconds")) or 0.0 for row in stages),
        folder=out.resolve().relative_to(Path.cwd()) if out.resolve().is_relative_to(Path.cwd()) else out,
        read=read,
        quality_page=(data / "quality.html").is_file(),
        agreement_plot=_agreement_plot(read["agreement"]),
        benchmark=benchmark,
        accuracy_plot=_accuracy_plot(benchmark),
        training_plot=_training_plot(read["reward-training"]),
        rl_plots=_rl_plots(read["rl-training"]),
        evaluation=evaluation,
        uplift_plot=_uplift_plot(evaluation),
        gates={
            "Reward model": read["reward-gate"] | _section(gates, "reward"),
            "Editor": read["editor-gate"] | _section(gates, "editor"),
        },
        verdicts=VERDICTS,
        verified={
            _section(verify, name).get("model") or champion: _section(verify, name)
            for name, champion in CHAMPIONS.items()
        },
    )
    write_file(out / "report.html", html)
    return out / "report.html"


def percent(value: Any, digits: int = 1) -> str:
    """Format a share as a percentage; "not measured" where it is missing.

    Args:
        value: The share, 0..1.
        digits: Decimal places.
    """
    share = finite_or_none(value)
    return "not measured" if share is None else f"{100 * share:.{digits}f} %"


def points(value: Any) -> str:
    """Format a difference of shares as signed percentage points; "not measured" where it is missing.

    Args:
        value: The difference, -1..1.
    """
    difference = finite_or_none(value)
    return "not measured" if difference is None else f"{100 * difference:+.1f} points".replace("-", "−")


def figure(value: Any, digits: int = 2) -> str:
    """Format a plain figure; "not measured" where it is missing.

    Args:
        value: The figure. An int gets thousands separators.
        digits: Decimal places of a float.
    """
    finite = finite_or_none(value)
    if finite is None:
        return "not measured"
    return f"{int(finite):,}" if isinstance(value, int) else f"{finite:.{digits}f}".replace("-", "−")


def seconds(value: Any) -> str:
    """Format a duration, such as 8.4 s or 3 min 20 s; "not measured" where it is missing.

    Args:
        value: Seconds.
    """
    duration = finite_or_none(value)
    if duration is None:
        return "not measured"
    return f"{duration:.1f} s" if duration < 60 else f"{int(duration) // 60} min {int(duration) % 60:02d} s"


def interval_text(value: Any, scale: float = 1, digits: int = 2) -> str:
    """Format a 95 % interval; "" where it is missing.

    Args:
        value: [low, high].
        scale: Factor of both ends.
        digits: Decimal places.
    """
    ends = _interval(value)
    return "" if ends is None else "[{}, {}]".format(*(f"{scale * end:.{digits}f}".replace("-", "−") for end in ends))


def headline(summary: Mapping[str, Any]) -> list[str]:
    """Return up to three sentences that sum up the turn. A sentence whose figures are missing is left out.

    Args:
        summary: The content of summary.json.
    """
    annotation, reward, editor = (_section(summary, key) for key in ("annotation", "reward", "editor"))
    sentences = []
    if finite_or_none(annotation.get("judgements")) is not None:
        people = _count(annotation.get("annotators"))
        who = "simulated experts" if summary.get("experts", "simulated") == "simulated" else "experts"
        sentences.append(
            f"{figure(people)} {who} gave {figure(annotation['judgements'])} judgements on "
            f"{figure(_count(annotation.get('tasks')))} edit tasks."
        )
    trained, base = finite_or_none(reward.get("accuracy_oracle")), finite_or_none(reward.get("accuracy_base"))
    if trained is not None and base is not None:
        sentences.append(
            f"The reward model that learnt from them puts {percent(trained)} of clear pairs, on pictures that it had "
            f"never seen, in the right order; before, it was {percent(base)}."
        )
    before, after = finite_or_none(editor.get("base")), finite_or_none(editor.get("tuned"))
    if before is not None and after is not None:
        interval = _interval(editor.get("ci95"))
        unsure = interval is not None and interval[0] <= 0 <= interval[1]
        sentences.append(
            f"The editor that learnt from that reward gets {percent(after)} of held-out edits right; before, it was "
            f"{percent(before)}.{' A difference of that size may be chance.' if unsure else ''}"
        )
    return sentences


def stage_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stages' rows of the summary, each with the `width` of its bar in percent of the longest.

    Args:
        summary: The content of summary.json.
    """
    rows = summary.get("stages") or []
    durations = [finite_or_none(row.get("seconds")) or 0.0 for row in rows]
    longest = max(durations, default=0.0) or 1.0
    return [row | {"width": 100 * duration / longest} for row, duration in zip(rows, durations, strict=True)]


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file does not exist or holds something else."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise EditLoopError(f"{path}: not JSON ({error}); run the demo again to make it anew.") from error
    return value if isinstance(value, dict) else {}


def _section(summary: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a part of the summary; empty where it is missing or null."""
    return summary.get(key) or {}


def _count(value: Any) -> Any:
    return len(value) if isinstance(value, list | dict) else value


def _interval(value: Any) -> tuple[float, float] | None:
    ends = [finite_or_none(end) for end in value] if isinstance(value, list | tuple) else []
    return (ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None


def _agreement_plot(agreement: Mapping[str, Any]) -> Markup | None:
    rows = []
    for axis, label, colour in (("if", "Instruction following", BLUE), ("vq", "Visual quality", VIOLET)):
        axis_agreement = agreement.get(axis) or {}
        interval = _interval(axis_agreement.get("ci95"))
        alpha = finite_or_none(axis_agreement.get("alpha"))
        rows.append(IntervalRow(label, alpha, interval, colour, f"{figure(alpha)} {interval_text(interval)}"))
    lowest = min([0.0, *(row.interval[0] if row.interval else 0.0 for row in rows)])
    return intervals("agreement", rows, (lowest, 1.0), [ReferenceLine(0.667, "usable"), ReferenceLine(0.8, "good")])


def _accuracy_plot(benchmark: Mapping[str, Any]) -> Markup | None:
    rows = []
    for label, key, interval_key, colour in (
        ("Clear pairs, before", "accuracy_base", None, SOFT),
        ("Clear pairs, after", "accuracy_oracle", "ci95", VIOLET),
        ("Experts’ labels, before", "accuracy_labels_base", None, SOFT),
        ("Experts’ labels, after", "accuracy_labels", "accuracy_labels_ci95", BLUE),
    ):
        value, interval = finite_or_none(benchmark.get(key)), _interval(benchmark.get(interval_key or ""))
        rows.append(IntervalRow(label, value, interval, colour, f"{percent(value)} {interval_text(interval, 100, 1)}"))
    lowest = min([0.45, *(row.interval[0] if row.interval else row.value for row in rows if row.value is not None)])
    return intervals(
        "accuracy", rows, (lowest, 1.0), [ReferenceLine(0.5, "coin toss")], lambda share: f"{100 * share:.0f} %"
    )


def _uplift_plot(evaluation: Mapping[str, Any]) -> Markup | None:
    uplift, interval = finite_or_none(evaluation.get("uplift")), _interval(evaluation.get("ci95"))
    if uplift is None:
        return None
    ends = [0.0, uplift, *(interval or ())]
    margin = 0.15 * (max(ends) - min(ends) or 0.1)
    row = IntervalRow(
        "Tuned minus base", uplift, interval, GREEN, f"{points(uplift)} {interval_text(interval, 100, 1)}"
    )
    return intervals(
        "uplift", [row], (min(ends) - margin, max(ends) + margin), [ReferenceLine(0.0, "no change")], _point_ticks
    )


def _point_ticks(share: float) -> str:
    return f"{100 * share:+.0f}".replace("-", "−") if round(100 * share) else "0"


def _training_plot(training: Mapping[str, Any]) -> Markup | None:
    steps, evaluations = training.get("steps"), training.get("evaluations")
    return curves(
        "training",
        [
            Curve("Loss on training pairs", *series(steps, "loss"), VIOLET),
            Curve("Loss on validation pairs", *series(evaluations, "loss"), VIOLET, dots=True),
            Curve("Accuracy on validation pairs", *series(evaluations, "accuracy"), BLUE, dots=True, percent=True),
        ],
    )


def _rl_plots(training: Mapping[str, Any]) -> list[Markup]:
    """Plot the rewards and the guards' measures, one row each. A row without data is left out."""
    steps, evaluations = training.get("steps"), training.get("evaluations")
    learnt = [
        Curve("Reward while practising", *series(steps, "reward"), VIOLET),
        _watched(evaluations, "reward", "Reward of held-out edits", VIOLET),
        _watched(evaluations, "oracle", "The oracle’s score of them", GREEN),
        _watched(evaluations, "right", "Held-out edits that are right", GREEN),
    ]
    guards = [
        Curve("KL to the base editor", *series(steps, "kl"), AMBER),
        _watched(evaluations, "preservation", "Left alone outside the edit", AMBER),
        _watched(evaluations, "diversity", "Diversity within a group", AMBER),
        _watched(evaluations, "grid_texture", "Texture on the patch grid", AMBER),
    ]
    drawn = [curves("rl", learnt), curves("rl-guards", guards)]
    return [plot for plot in drawn if plot]


def _watched(evaluations: Any, name: str, title: str, colour: str) -> Curve:
    """Return the curve of one figure of the evaluations, with a band where every evaluation has its interval."""
    steps, values = series(evaluations, name)
    (ends, low), (others, high) = (series(evaluations, f"{name}_{side}") for side in ("low", "high"))
    band = list(zip(low, high, strict=True)) if ends == others == steps else []
    return Curve(title, steps, values, colour, dots=True, percent=name == "right", band=band)


def _picture(data: Path, name: Any, *, bounded: bool = True) -> dict[str, Any] | None:
    """Return an image below `data` as {"uri", "small"}; None if it is not there."""
    if not isinstance(name, str) or not (data / name).is_file():
        return None
    with Image.open(data / name, formats=("PNG",)) as opened:
        small = max(opened.size) <= SMALL_SIDE
        buffer = io.BytesIO()
        if small or not bounded:
            opened.save(buffer, format="PNG")
        else:
            opened.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
            opened.convert("RGB").save(buffer, format="JPEG", quality=88)
    kind = "png" if small or not bounded else "jpeg"
    return {"uri": f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", "small": small}
