"""docs/gpu.md: how to run the rows, and the figures of docs/gpu.json where there are any.

python -m tests.gpu.page [gpu.json]    # writes docs/gpu.md; a gpu.json is first put in the place of docs/gpu.json
"""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
FIGURES, PAGE = DOCS / "gpu.json", DOCS / "gpu.md"

HEAD = """\
# On a GPU

What EditLoop's own code does on one GPU at real sizes: EditReward and EditScore on Qwen2.5-VL-7B and Qwen3-VL-8B, an
iteration of online RL of editors of 4 to 20 billion weights, training with the help of main memory. Weights are random
and come into being on the device, in bfloat16: nothing is downloaded, and figures say how fast and how exact the code
is, not how good a model is.

```
tests/gpu/collect.sh                  # where there is a package index: wheels into build/gpu-wheels, 60 MB at most
tests/gpu/run.sh                      # on the machine with the GPU; it needs Python, PyTorch and these wheels
python -m tests.gpu.page build/gpu/gpu.json
```

`run.sh` reaches for no network and ends within ten minutes. Each row runs in a process of its own; one that does not
fit into memory, crashes or takes too long is a row with its reason. `--out` (or `OUT`) names the output folder, `--row`
picks rows, `--tiny` runs all of them at tiny sizes on any CPU. The last line puts the figures into `docs/gpu.json` and
writes this page.

"""
NONE = """\
## Figures

There are none yet: nobody has run it on a GPU and kept the figures.
"""


def count(value: float) -> str:
    return f"{value:,.0f}"


def share(value: float) -> str:
    return f"{value:.0%}"


def times(value: float) -> str:
    return f"{value:.2f}x"


def gib(value: float) -> str:
    return f"{value:.1f} GiB"


def seconds(value: float) -> str:
    return f"{value:.1f} s"


def plain(value: float) -> str:
    return f"{value:.3g}"


LABELS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "ratio": ("as fast as the plain way", times),
    "returned_ratio": ("as fast as `generate` with four returned sequences", times),
    "token_ratio": ("tokens of plain passes over ours", times),
    "weights_billions": ("frozen weights, billions", plain),
    "edits_per_second": ("edits a second", plain),
    "plain_edits_per_second": ("edits a second, the plain way", plain),
    "tokens_per_second": ("tokens a second", count),
    "prompt_tokens": ("tokens of the prompts", count),
    "answer_tokens": ("tokens of an answer", count),
    "mfu": ("model FLOPs utilisation", share),
    "waiting": ("time spent waiting for data", share),
    "sampling_seconds": ("sampling an iteration's edits", seconds),
    "updating_seconds": ("updating on them", seconds),
    "peak_gib": ("peak memory", gib),
    "plain_peak_gib": ("peak memory, the plain way", gib),
    "planned_gib": ("`editloop plan` says", gib),
    "planned_whole_gib": ("`editloop plan` says of training all weights here", gib),
    **{
        f"zero{stage}_{name}": (f"ZeRO-{stage}, {offloaded} in main memory: {label}", written)
        for stage, offloaded in ((2, "optimiser"), (3, "optimiser and weights"))
        for name, label, written in (
            ("edits_per_second", "edits a second", plain),
            ("peak_gib", "peak memory", gib),
            ("planned_gib", "`editloop plan` says", gib),
        )
    },
    "hidden_apart": ("relative difference of hidden states", plain),
    "logits_apart": ("relative difference of first tokens' logits", plain),
    "scores_apart": ("largest difference of a raw score", plain),
    "steps": ("steps", count),
    "loss": ("loss", plain),
    "loss_apart": ("largest relative difference of a loss", plain),
    "gradient_norm": ("gradient norm", plain),
    "norm_apart": ("relative difference of the gradient norm", plain),
    "same_bits": ("all losses the same to the last bit", str),
    "ratio_deviation": ("deviation of the probability ratio from 1 at the first update", plain),
}
"""What each figure is called and how it is written."""


def page(results: Mapping[str, Any] | None) -> str:
    """The page with these results (run.py's), or without any."""
    return HEAD + (NONE if results is None else _figures(results))


def read_figures() -> dict[str, Any] | None:
    """docs/gpu.json; None where there is none."""
    return json.loads(FIGURES.read_text()) if FIGURES.is_file() else None


def main(source: Path | None = None) -> None:
    """Write the page; figures from `source` come first into their place."""
    if source is not None:
        shutil.copyfile(source, FIGURES)
    PAGE.write_text(page(read_figures()))


def _figures(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    driver = f", driver {machine['driver']}" if machine["driver"] else ""
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("torch", "transformers", "diffusers", "peft", "deepspeed")
    )
    peak = machine["peak_tflops"]
    against = f" Utilisation is against its dense bfloat16 peak of {peak:g} TFLOP/s." if peak else ""
    tiny = " Tiny sizes: no figures of speed." if results["size"] == "tiny" else ""
    lines = [
        f"## Figures: {machine['card']}",
        "",
        f"{machine['card']}{memory}{driver}, Python {machine['python']}, {versions}.{against}{tiny} "
        f"All rows took {results['seconds']:.0f} s.",
        "",
        "| | |",
        "|---|---|",
    ]
    for row in results["rows"]:
        reason = f": {row['reason']}" if row["reason"] else ""
        lines.append(f"| **{row['title']}** | {row['status']}{reason.replace('|', '/')} ({row['seconds']:.0f} s) |")
        for name, value in row["figures"].items():
            label, written = LABELS[name]
            lines.append(f"| {label} | {'not known' if value is None else written(value)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
