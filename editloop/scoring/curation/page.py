"""The HTML page of a curation: score histograms of kept and dropped edits, the reasons, and example images of both."""

from pathlib import Path
from typing import Any

import numpy as np

from editloop.data.picture_file import load_image
from editloop.pages.plots import GREEN, SOFT, Layer, histogram
from editloop.pages.templates import render
from editloop.pages.thumbnails import thumbnail
from editloop.scoring.curation.selection import Selection
from editloop.scoring.curation.triples import ScoredTriples

SHOWN = 6
"""Examples shown per group."""
SIDE, BINS = 160, 30
"""Longest side of a thumbnail in pixels, and bins of the histogram."""


def curate_page(report: dict[str, Any], scored: ScoredTriples, selection: Selection) -> str:
    """Render a curation as one self-contained HTML page.

    Args:
        report: The content of `curation.json`.
        scored: The triples with their scores.
        selection: Which triples are kept.

    Returns:
        The HTML.
    """
    scored_indices = np.flatnonzero(np.isfinite(selection.counted))
    inside = np.isin(scored_indices, selection.kept)
    dropped, selected = scored_indices[~inside], scored_indices[inside]
    layers = [Layer("kept", selection.counted[selected], GREEN), Layer("not kept", selection.counted[dropped], SOFT)]
    by_score = {
        f"{name}, {end} scores": indices[np.argsort(sign * selection.counted[indices], kind="stable")][:SHOWN]
        for name, indices in (("Kept", selected), ("Not kept", dropped))
        for end, sign in (("highest", -1), ("lowest", 1))
    }
    return render(
        Path(__file__).with_name("curate_page.html.j2"),
        report=report,
        picture=histogram("scores", layers, BINS) or "",
        examples={
            title: [_example(scored, int(index), float(selection.counted[index])) for index in indices]
            for title, indices in by_score.items()
            if len(indices)
        },
    )


def _example(scored: ScoredTriples, index: int, score: float) -> dict[str, Any]:
    triple = scored.triples[index]
    sigma = scored.sigma[index]
    return {
        "instruction": triple.instruction,
        "source": thumbnail(load_image(triple.source), SIDE).address,
        "references": [thumbnail(load_image(reference), SIDE).address for reference in triple.references],
        "edit": thumbnail(load_image(triple.image), SIDE).address,
        "score": f"{score:.2f}",
        "sigma": f"{sigma:.2f}" if np.isfinite(sigma) else None,
        "editor": triple.editor,
    }
