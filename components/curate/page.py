"""What was kept and what was not, as a page: the scores of both, the reasons, and pictures from either side."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from annotation.formats.picture_file import load_image
from components.curate.selection import Selection
from components.curate.triples import Scored
from infra.plots import GREEN, SOFT, Layer, histogram, page_style

SHOWN = 6
"""Edits of each group of examples."""
SIDE, BINS = 160, 30


def curate_page(report: dict[str, Any], scored: Scored, kept: Selection) -> str:
    """One self-contained HTML page of a curation. report: what curation.json holds."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    known = np.flatnonzero(np.isfinite(kept.counted))
    inside = np.isin(known, kept.kept)
    left, taken = known[~inside], known[inside]
    layers = [Layer("kept", kept.counted[taken], GREEN), Layer("not kept", kept.counted[left], SOFT)]
    by_score = {
        "Kept, highest scores": taken[np.argsort(-kept.counted[taken], kind="stable")][:SHOWN],
        "Kept, lowest scores": taken[np.argsort(kept.counted[taken], kind="stable")][:SHOWN],
        "Not kept, highest scores": left[np.argsort(-kept.counted[left], kind="stable")][:SHOWN],
        "Not kept, lowest scores": left[np.argsort(kept.counted[left], kind="stable")][:SHOWN],
    }
    return environment.get_template("curate_page.html.j2").render(
        report=report,
        style=Markup(page_style()),
        picture=Markup(histogram("scores", layers, BINS) or ""),
        examples={
            title: [_example(scored, int(place), float(kept.counted[place])) for place in places]
            for title, places in by_score.items()
            if len(places)
        },
    )


def _example(scored: Scored, place: int, score: float) -> dict[str, Any]:
    one = scored.triples[place]
    sigma = scored.sigma[place]
    return {
        "instruction": one.instruction,
        "source": _thumbnail(one.source),
        "edit": _thumbnail(one.image),
        "score": f"{score:.2f}",
        "sigma": f"{sigma:.2f}" if np.isfinite(sigma) else None,
        "editor": one.editor,
    }


def _thumbnail(path: Path) -> str:
    buffer = io.BytesIO()
    image = load_image(path)
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
