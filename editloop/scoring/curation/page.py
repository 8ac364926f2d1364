"""The HTML page of a curation: score histograms of kept and dropped edits, the reasons, and example images of both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.data.picture_file import load_image
from editloop.pages.plots import GREEN, SOFT, Layer, histogram
from editloop.pages.templates import render
from editloop.pages.thumbnails import thumbnail
from editloop.scoring.curation.selection import Selection
from editloop.scoring.curation.triples import ScoredTriples, Triple

SHOWN = 6
"""Examples shown per group."""
SIDE, BINS = 160, 30
"""Longest side of a thumbnail in pixels, and bins of the histogram."""


def shown_indices(selection: Selection) -> dict[str, NDArray[np.int64]]:
    """Return indices of the edits that the page shows, by the title of their group.

    Args:
        selection: Which of the edits are kept.
    """
    selected, dropped = _kept_and_dropped(selection)
    groups = {
        f"{name}, {end} scores": indices[np.argsort(sign * selection.counted[indices], kind="stable")][:SHOWN]
        for name, indices in (("Kept", selected), ("Not kept", dropped))
        for end, sign in (("highest", -1), ("lowest", 1))
    }
    return {title: indices for title, indices in groups.items() if len(indices)}


def curate_page(
    report: dict[str, Any],
    scored: ScoredTriples,
    selection: Selection,
    examples: Mapping[str, NDArray[np.int64]],
    triples: Mapping[int, Triple],
) -> str:
    """Render a curation as one self-contained HTML page.

    Args:
        report: The content of `curation.json`.
        scored: The scores of all triples.
        selection: Which triples are kept.
        examples: Indices of the edits to show, as `shown_indices` returns them.
        triples: The triples at these indices.

    Returns:
        The HTML.
    """
    selected, dropped = _kept_and_dropped(selection)
    layers = [Layer("kept", selection.counted[selected], GREEN), Layer("not kept", selection.counted[dropped], SOFT)]
    return render(
        Path(__file__).with_name("curate_page.html.j2"),
        report=report,
        picture=histogram("scores", layers, BINS) or "",
        examples={
            title: [_example(triples[index], selection.counted[index], scored.sigma[index]) for index in indices]
            for title, indices in examples.items()
        },
    )


def _kept_and_dropped(selection: Selection) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the scored edits that are kept, and of those that are not."""
    present = np.flatnonzero(np.isfinite(selection.counted))
    inside = np.isin(present, selection.kept)
    return present[inside], present[~inside]


def _example(triple: Triple, score: float, sigma: float) -> dict[str, Any]:
    return {
        "instruction": triple.instruction,
        "source": thumbnail(load_image(triple.source), SIDE).address,
        "references": [thumbnail(load_image(reference), SIDE).address for reference in triple.references],
        "edit": thumbnail(load_image(triple.image), SIDE).address,
        "score": f"{score:.2f}",
        "sigma": f"{sigma:.2f}" if np.isfinite(sigma) else None,
        "editor": triple.editor,
    }
