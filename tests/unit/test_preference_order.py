"""Orders from comparisons: what follows from them, and nothing else."""

from itertools import combinations, pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.formats.preference_order import Groups, merged_order, ordered_answers
from annotation.formats.preference_ratings import PreferenceAnswer, ratings_of_answers

LEVELS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), min_size=2)


def compared(levels: dict[str, int], pairs: list[tuple[str, str]]) -> list[Groups]:
    """The comparison of each pair that follows from levels."""
    comparisons: list[Groups] = []
    for first, second in pairs:
        if levels[first] == levels[second]:
            comparisons.append([[first, second]])
        else:
            better, worse = (first, second) if levels[first] > levels[second] else (second, first)
            comparisons.append([[better], [worse]])
    return comparisons


def ordered(levels: dict[str, int]) -> Groups:
    return [
        [name for name in sorted(levels) if levels[name] == level]
        for level in sorted(set(levels.values()), reverse=True)
    ]


@given(LEVELS)
def test_all_pairs_of_an_order_give_the_order(levels: dict[str, int]) -> None:
    assert merged_order(compared(levels, list(combinations(sorted(levels), 2)))) == ordered(levels)


@given(LEVELS, st.randoms())
def test_a_chain_in_any_order_gives_the_order_and_one_link_less_does_not(
    levels: dict[str, int], random: object
) -> None:
    names = sorted(levels, key=lambda name: (-levels[name], name))
    links = list(pairwise(names))
    random.shuffle(links)  # type: ignore[attr-defined]
    assert merged_order(compared(levels, links)) == ordered(levels)
    if len(links) > 2:
        fault = merged_order(compared(levels, links[1:]))
        assert isinstance(fault, str) or len({name for group in fault for name in group}) < len(levels)


@pytest.mark.parametrize(
    ("comparisons", "reason"),
    [
        ([[["a"], ["b"]], [["b"], ["a"]]], "contradicts other answers on a and b"),
        ([[["a"], ["b"]], [["a", "b"]]], "contradicts other answers on a and b"),
        ([[["a"], ["b"]], [["b"], ["c"]], [["c"], ["a"]]], "contradicts other answers"),
        ([[["a"], ["b"]], [["a"], ["c"]]], "nothing says which of b and c is better"),
        ([[["a"], ["b"]], [["c"], ["d"]]], "nothing says which of a and c is better"),
    ],
)
def test_contradictions_and_open_orders_are_none(comparisons: list[Groups], reason: str) -> None:
    for shuffled in permutations(comparisons):
        merged = merged_order(shuffled)
        assert isinstance(merged, str)
        assert reason in merged


def test_ties_join_groups() -> None:
    assert merged_order([[["a", "b"]], [["c"], ["b"]], [["c", "d"]]]) == [["c", "d"], ["a", "b"]]
    assert merged_order([[["a", "b", "c"]]]) == [["a", "b", "c"]]
    assert merged_order([]) == []


def test_answers_are_taken_as_long_as_an_order_follows() -> None:
    """The second needs the third; the fourth contradicts; the fifth leaves the order of e open."""
    answers = [
        (1, [[["a"], ["b"]]]),
        (2, [[["a"], ["c"]]]),
        (3, [[["b"], ["c"]]]),
        (4, [[["c"], ["a"]]]),
        (5, [[["a"], ["e"]]]),
    ]
    order, left_out = ordered_answers(answers)
    assert order == [["a"], ["b"], ["c"]]
    assert [number for number, _ in left_out] == [4, 5]
    assert "contradicts" in left_out[0][1]
    assert "nothing says" in left_out[1][1]
    assert ordered_answers([])[0] == []


def answer(location: str, follows: Groups, looks: Groups, seconds: float | None = 2.0) -> PreferenceAnswer:
    names = [name for group in follows for name in group]
    positions = {name: number for number, name in enumerate(names)}
    return PreferenceAnswer(location, {"if": [follows], "vq": [looks]}, positions, seconds, None)


A, B, C = "a" * 16, "b" * 16, "c" * 16
NAMES = {A: "a.png", B: "b.png", C: "c.png"}


def test_an_orders_ranks_become_the_ratings_that_are_stated_for_each_axis() -> None:
    answers = [answer("1", [[A], [B]], [[A, B]]), answer("2", [[B], [C]], [[C], [B]])]
    ranked, left_out = ratings_of_answers("anna", answers, {2: [4, 2], 3: [4, 3, 1]}, NAMES)
    assert not left_out
    assert {edit.candidate: edit.rating.ratings for edit in ranked} == {A: (4, 2), B: (3, 2), C: (1, 4)}
    assert {edit.rating.seconds for edit in ranked} == {4.0}
    assert {edit.candidate: edit.rating.position for edit in ranked} == {A: 0, B: 1, C: 1}


def test_an_answer_that_one_axis_leaves_out_counts_on_neither() -> None:
    answers = [answer("1", [[A], [B]], [[A], [B]]), answer("2", [[B], [A]], [[A], [B]])]
    ranked, left_out = ratings_of_answers("anna", answers, {2: [4, 2]}, NAMES)
    assert {edit.candidate: edit.rating.ratings for edit in ranked} == {A: (4, 4), B: (2, 2)}
    assert left_out == [("2", "if: it contradicts other answers on a.png and b.png")]


def test_ranks_that_are_not_stated_and_edits_of_one_axis_are_left_out() -> None:
    ranked, left_out = ratings_of_answers("anna", [answer("1", [[A], [B]], [[A], [B]])], {1: [3]}, NAMES)
    assert not ranked
    assert left_out == [("1", "if: an order of 2 ranks; ranks states 1. State what 2 count as")]
    ranked, left_out = ratings_of_answers(
        "anna", [answer("1", [[A], [B], [C]], [[A], [B]])], {2: [4, 1], 3: [4, 2, 1]}, NAMES
    )
    assert {edit.candidate: edit.rating.ratings for edit in ranked} == {A: (4, 4), B: (2, 1)}
    assert left_out == [("1", "c.png: in the order of if alone; a vote has both axes")]
