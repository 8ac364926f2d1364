"""The rating of 1 to 4 that a value on another scale becomes."""

import pytest

from annotation.formats.rating_scale import OUR_SCALE, RatingScale, parse_scale
from editloop.errors import EditLoopError


@pytest.mark.parametrize(
    ("scale", "ratings"),
    [
        ("1..5", {1: 1, 2: 2, 3: 3, 4: 3, 5: 4}),
        ("5..1", {5: 1, 4: 2, 3: 3, 2: 3, 1: 4}),
        ("0..100", {0: 1, 16: 1, 17: 2, 49: 2, 50: 3, 83: 3, 84: 4, 100: 4}),
        ("-1..1", {-1: 1, 0: 3, 1: 4}),
        ("0,0..1,0", {0: 1, 0.5: 3, 1: 4}),
        ("0.5..3.5", {0.5: 1, 1: 2, 3.5: 4}),
    ],
)
def test_a_scale_is_mapped_linearly_with_halves_upwards(scale: str, ratings: dict[float, int]) -> None:
    assert {value: parse_scale(scale, "--scale").rating(value) for value in ratings} == ratings


@pytest.mark.parametrize("text", ["", "5", "1-5", "1..", "a..b", "3..3", "1...5", "1..2..3"])
def test_what_is_no_scale_is_refused(text: str) -> None:
    with pytest.raises(EditLoopError, match=r"--scale .*: no scale\. Write WORST\.\.BEST"):
        parse_scale(text, "--scale")


def test_our_scale_takes_its_whole_numbers_alone() -> None:
    assert [OUR_SCALE.rating(value) for value in (1, 2, 3.0, 4)] == [1, 2, 3, 4]
    assert OUR_SCALE.rule == "scale 1..4"
    for value in (0, 0.99, 4.01, 5):
        with pytest.raises(ValueError, match=r"not on the scale 1\.\.4"):
            OUR_SCALE.rating(value)
    with pytest.raises(ValueError, match=r"on 1\.\.4 is a whole number"):
        OUR_SCALE.rating(2.5)


def test_a_value_off_the_scale_is_refused_at_both_ends() -> None:
    for scale in (RatingScale(1, 5), RatingScale(5, 1)):
        for value in (0.9, 5.1):
            with pytest.raises(ValueError, match="not on the scale"):
                scale.rating(value)
    assert RatingScale(5, 1).rule == "scale 5..1 mapped linearly onto 1..4 and rounded"


def test_a_half_is_a_half_whatever_the_step() -> None:
    """1 + 3 * 0.25 / 1.5 and its like are not exact in floating point."""
    for steps in range(2, 60, 2):
        scale = RatingScale(0, 0.1 * steps)
        assert scale.rating(0.1 * steps / 2) == 3
