"""A model's card: its figures with their intervals, and names that cannot change the page."""

from editloop.lineage.model_card import CardFigure, Link, card_figures, model_card, truncate_card
from editloop.lineage.promotion_pages import MAX_DESCRIPTION, promotion_table
from editloop.lineage.registry import Promotion


def test_each_figure_has_the_interval_that_is_its_own() -> None:
    found = card_figures(
        {
            "accuracy_labels": 0.8,
            "accuracy_labels_ci95": [0.75, 0.85],
            "accuracy_oracle": 0.9,
            "ci95": [0.88, 0.92],
            "accuracy_genai-bench": 0.6,
            "ci95_genai-bench": [0.5, 0.7],
            "pairs": 594,
            "within_editor": None,
            "by_task": {"move": 1.0},
        }
    )
    assert found == [
        CardFigure("accuracy labels", "0.800", "0.750 to 0.850"),
        CardFigure("accuracy oracle", "0.900", "0.880 to 0.920"),
        CardFigure("accuracy genai-bench", "0.600", "0.500 to 0.700"),
        CardFigure("pairs", "594", "—"),
        CardFigure("within editor", "not measured", "—"),
    ]
    assert card_figures({"uplift": 0.02, "ci95": [-0.01, 0.05]}) == [CardFigure("uplift", "0.020", "-0.010 to 0.050")]


def test_a_card_tells_verdict_chain_limits_and_training() -> None:
    gate = {"verdict": "hold", "reasons": ["interval | of *accuracy*"]}
    chain = [Link("dataset", "abc"), Link("training run", "r1", "#/experiments/1/runs/r1")]
    card = model_card("edit-score", "edit-score", gate, {"accuracy": 0.5}, chain, {"seed": 3})
    assert "# edit-score: hold" in card
    assert r"- interval \| of \*accuracy\*" in card
    assert "| dataset | abc |" in card
    assert "| training run | [r1](#/experiments/1/runs/r1) |" in card
    assert "- seed: 3" in card
    assert "## Training" not in model_card("editor", "editor", gate, {}, [], {})


def test_a_long_card_is_cut_at_a_line_and_says_where_the_rest_is() -> None:
    cut = truncate_card("line\n" * MAX_DESCRIPTION, "card.md of run r1")
    assert len(cut) <= MAX_DESCRIPTION
    assert cut.endswith("line\n\n… the whole card: card.md of run r1")
    assert truncate_card("short", "elsewhere") == "short"


def test_the_history_holds_as_many_of_the_newest_records_as_fit() -> None:
    records = [
        Promotion(
            number=number,
            action="promote",
            model="m",
            version=str(number),
            alias="champion",
            actor="Ada",
            reason="r" * 500,
            previous="",
            verdict="promote",
            evidence={},
            at="2026-11-24T19:49:47+00:00",
            run_id="r",
        )
        for number in range(1, 101)
    ]
    lines = promotion_table(records, MAX_DESCRIPTION).splitlines()
    assert len("\n".join(lines)) <= MAX_DESCRIPTION
    assert lines[4].startswith("| 100 | 2026-11-24 19:49:47 UTC | champion | 100 | none | promote | Ada | rrr")
    assert 10 < len(lines) < 100
