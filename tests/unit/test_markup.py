"""Names and reasons on MLflow's pages, which are Markdown: whatever they hold, they stay text."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from editloop.lineage import run_inputs
from editloop.lineage.model_card import Link, model_card
from editloop.lineage.promotion_pages import markdown_cell, promotion_table
from editloop.lineage.registry import Promotion

ATTACKS = (
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "![x](http://stranger.example/pixel.png)",
    "[click](http://stranger.example)",
    "<http://stranger.example>",
    "a | b\n\n# heading\n- item",
    "`code` **bold** <b>",
    "\\<script>alert(1)</script>",
    "&lt;script&gt; &#60;b&#62;",
    "[x]: http://stranger.example\n[x]",
)
TAGS = re.compile(r"<\s*(script|img|a|b|iframe|svg|code|strong|em|h[2-6])\b", re.IGNORECASE)


def rendered(markdown: str) -> str:
    """As a page shows it that lets HTML through, which is more than MLflow's does."""
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))


@pytest.mark.parametrize("attack", ATTACKS)
def test_unescaped_each_would_change_the_page(attack: str) -> None:
    assert rendered(attack) != rendered(markdown_cell(attack))


@given(st.one_of(st.sampled_from(ATTACKS), st.text("<>[]()!|`*_#\\&;:/ \na1\"'=-+~", max_size=40)))
def test_a_cell_is_text(text: str) -> None:
    html = rendered(f"| x |\n|---|\n| {markdown_cell(text)} |")
    body = html.partition("<tbody>")[2]
    assert len(re.findall("<td", body)) == len(re.findall("<tr", body)) <= 1
    inside = re.sub("</?(tbody|table|tr|td)>", "", body)
    assert "<" not in inside, inside


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_page_of_the_registry_runs_or_loads_what_a_name_says(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tags: dict[str, str] = {}

    class Api:
        def set_tag(self, run: str, key: str, value: str) -> None:
            tags[key] = value

    monkeypatch.setattr(run_inputs, "client", Api)
    gate: dict[str, Any] = {"verdict": attack, "reasons": [attack, {"x": attack}]}
    run_inputs.describe_verdict("run", gate)
    record = Promotion(
        number=1,
        action=attack,
        model=attack,
        version=attack,
        alias=attack,
        actor=attack,
        reason=attack,
        previous=attack,
        verdict=attack,
        evidence={attack: attack},
        at="2026-01-01T00:00:00",
        run_id="r",
    )
    chain = [Link(attack, attack), Link("run", attack, "#/experiments/1/runs/r1")]
    card = model_card(attack, "editor", gate, {attack: 0.5}, chain, {attack: attack})
    for page in (tags["mlflow.note.content"], promotion_table([record], 5000), card):
        html = rendered(page).replace('<a href="#/experiments/1/runs/r1">', "")
        allowed = html.replace("<h2>", "").replace("<strong>", "")
        assert not TAGS.search(allowed), allowed
