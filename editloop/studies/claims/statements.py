"""The claims in words, and the figures that decide whether they hold."""

from typing import NamedTuple

from editloop.studies.claims.curation import PUBLISHED, SHARES, best_name
from editloop.studies.claims.scaling import DOUBLINGS
from editloop.studies.claims.statistics import Contrast, PieceFigure


class PlotLine(NamedTuple):
    """A line of a claim's plot: a figure for each point of the x-axis."""

    label: str
    figures: tuple[PieceFigure, ...]


class Claim(NamedTuple):
    """A claim of the papers, and how it is measured."""

    number: int
    says: str
    """The claim in words."""
    how: str
    """How it is measured, and what would show that it does not hold."""
    contrasts: tuple[Contrast, ...]
    figures: tuple[PieceFigure, ...]
    traces: tuple[PlotLine, ...] = ()
    places: tuple[str, ...] = ()
    """Labels of the x-axis of `traces`."""

    @property
    def pieces(self) -> list[str]:
        """Names of the pieces whose figures the claim uses."""
        traced = [figure for trace in self.traces for figure in trace.figures]
        compared = [
            figure for contrast in self.contrasts for figure in (contrast.plus, contrast.minus) if figure is not None
        ]
        return list(dict.fromkeys(figure.piece for figure in (*self.figures, *compared, *traced)))


def _right(label: str, piece: str) -> PieceFigure:
    return PieceFigure(label, piece, "right")


BASE = _right("base editor, right edits", "base")
LEARNT = _right("tuned by the learnt reward", "rl-learnt")
FEW = _right("tuned by the reward of few labels", "rl-few")
NOISY = _right("tuned by the reward of noisy labels", "rl-noisy")
ORACLE = _right("tuned by the oracle itself", "rl-oracle")
ONCE = PieceFigure("EditScore, one pass", "score", "accuracy")
OFTEN = PieceFigure("EditScore, Avg@K", "score", "accuracy_avg")
HEADS, SHARED, REGRESSION = (
    PieceFigure(label, f"disagreeing-{design}", "accuracy")
    for label, design in (
        ("a head an axis, with uncertainty", "heads"),
        ("one shared head, with uncertainty", "shared"),
        ("a head an axis, pointwise regression", "regression"),
    )
)
ALL = _right("all of the noisy set", best_name(1.0))
CHOSEN = _right(f"best-scored {PUBLISHED:.0%}", best_name(PUBLISHED))
FEWEST = _right(f"best-scored {SHARES[0]:.0%}", best_name(SHARES[0]))
RANDOM = _right(f"random {PUBLISHED:.0%}", "sft-random")
UNTUNED = _right("base editor, right edits", "round-0")
FIRST = _right("first round", "round-1")
SECOND = _right("second round", "round-2")
AGAIN = _right("as much RL again, first reward", "round-1-again")
PASSIVE = _right("second round of passive labels", "passive")
PAIRS = _right("trained on the pairs (DPO)", "dpo-pairs")
LABELLED = _right("fine-tuned on the best labelled edits (SFT)", "sft-labelled")
WITHIN = "within_group"

CLAIMS = (
    Claim(
        1,
        "RL with the learnt reward lifts the editor's oracle score on held-out tasks.",
        "Share of right edits by the oracle, tuned minus base, one edit a task from the same noise. The oracle as the "
        "reward shows how far RL comes.",
        (
            Contrast("learnt reward − base, right edits", LEARNT, BASE),
            Contrast(
                "learnt reward − base, oracle's mean",
                PieceFigure("", "rl-learnt", "oracle"),
                PieceFigure("", "base", "oracle"),
                decides=False,
            ),
            Contrast("oracle as reward − base, right edits", ORACLE, BASE, decides=False),
        ),
        (BASE, LEARNT, ORACLE),
    ),
    Claim(
        2,
        "With a weak reward (few or noisy labels) RL lifts less, or the reward is hacked.",
        "Right edits, learnt reward minus that of few labels. A teacher's own view of its editor that goes up while "
        "the right edits go down is hacking. Noisy labels, three of four experts at random, are shown beside.",
        (
            Contrast("learnt − few labels, right edits", LEARNT, FEW),
            Contrast("learnt − noisy labels, right edits", LEARNT, NOISY, decides=False),
            Contrast("few labels − base, right edits", FEW, BASE, decides=False),
            Contrast(
                "few labels − base, its own reward",
                PieceFigure("", "rl-few", "reward"),
                PieceFigure("", "base", "reward_few"),
                decides=False,
            ),
            Contrast("noisy labels − base, right edits", NOISY, BASE, decides=False),
        ),
        (
            BASE,
            LEARNT,
            FEW,
            NOISY,
            *(
                PieceFigure(f"{label}: clear held-out pairs in order", f"reward-{name}", "accuracy")
                for label, name in (("full labels", "full"), ("few labels", "few"), ("noisy labels", "noisy"))
            ),
            *(
                PieceFigure(f"{label}: correlation within a group", f"reward-{name}", WITHIN, "")
                for label, name in (("full labels", "full"), ("few labels", "few"), ("noisy labels", "noisy"))
            ),
        ),
    ),
    Claim(
        3,
        "Fine-tuning on the best-scored part of noisy edits beats all of them and a random part; over the size of "
        "the part it is an inverted U.",
        f"Right edits after as many steps on each part. The part is the published optimum ({PUBLISHED:.0%}), chosen "
        f"before anything was measured; the U needs it above the smallest part ({SHARES[0]:.0%}) too.",
        (
            Contrast("best-scored − all", CHOSEN, ALL),
            Contrast("best-scored − random part", CHOSEN, RANDOM),
            Contrast("best-scored − smallest best-scored part", CHOSEN, FEWEST),
            Contrast("best-scored − base", CHOSEN, BASE, decides=False),
        ),
        (BASE, FEWEST, CHOSEN, RANDOM, ALL),
        (PlotLine("best-scored", tuple(_right("", best_name(share)) for share in SHARES)),),
        tuple(f"{share:.0%}" for share in SHARES),
    ),
    Claim(
        4,
        "Avg@K beats one pass.",
        "Clear held-out pairs that EditScore orders as the oracle does, K passes minus one pass of the same model.",
        (
            Contrast("Avg@K − one pass, pairs in order", OFTEN, ONCE),
            Contrast(
                "Avg@K − one pass, correlation within a group",
                PieceFigure("", "score", f"{WITHIN}_avg", ""),
                PieceFigure("", "score", WITHIN, ""),
                decides=False,
            ),
        ),
        (ONCE, OFTEN),
    ),
    Claim(
        5,
        "Heads of several axes with uncertainty beat one shared head, which beats regression.",
        "Clear held-out pairs in order; the same data, epochs and seed for each. In this world the axes disagree: of "
        "each task's edits, experts see the four that trade most of the one axis for the other. Labels are few, one of "
        "four experts rates at random, and the loss is the published one, in which an overall tie whose axes disagree "
        "becomes two samples. The design was chosen on a seed that is not measured here.",
        (
            Contrast("a head an axis − shared head", HEADS, SHARED),
            Contrast("shared head − regression", SHARED, REGRESSION),
            *(
                Contrast(
                    f"{label}, pairs whose axes disagree",
                    plus._replace(name="accuracy_disagreeing"),
                    minus._replace(name="accuracy_disagreeing"),
                    decides=False,
                )
                for label, plus, minus in (
                    ("a head an axis − shared head", HEADS, SHARED),
                    ("shared head − regression", SHARED, REGRESSION),
                )
            ),
        ),
        (HEADS, SHARED, REGRESSION),
    ),
    Claim(
        6,
        "Best-of-N rises with N, and saturates earlier for the weak reward.",
        "Right edits when the best of N is taken by the learnt reward, by that of few labels, or by the oracle. "
        "Saturating earlier: the second half of the doublings of N gains less.",
        (
            Contrast("learnt reward, largest N − 1", PieceFigure("", "best-of-n", "gain_learnt"), None),
            Contrast(
                "late gain, learnt − few labels",
                PieceFigure("", "best-of-n", "late_learnt"),
                PieceFigure("", "best-of-n", "late_few"),
            ),
            Contrast("few labels, largest N − 1", PieceFigure("", "best-of-n", "gain_few"), None, decides=False),
            Contrast("oracle, largest N − 1", PieceFigure("", "best-of-n", "gain_oracle"), None, decides=False),
        ),
        (),
        tuple(
            PlotLine(label, tuple(PieceFigure("", "best-of-n", f"{judge}_{count}") for count in DOUBLINGS))
            for label, judge in (("oracle", "oracle"), ("learnt reward", "learnt"), ("few labels", "few"))
        ),
        tuple(f"N = {count}" for count in DOUBLINGS),
    ),
    Claim(
        7,
        "A second round (candidates from the tuned editor, new labels, new reward, RL again) lifts further.",
        "Right edits after the second round, minus after the first, and minus after as much RL with the first reward, "
        "which few labels taught. In the second round experts see edits by the tuned editor about which an ensemble "
        "on the first labels disagrees. As many passive labels: random pages of the base editor's edits. The design "
        "was chosen on a seed that is not measured here.",
        (
            Contrast("second round − first, right edits", SECOND, FIRST),
            Contrast("second round − as much RL with the first reward", SECOND, AGAIN),
            Contrast("second round − as many labels spent passively", SECOND, PASSIVE, decides=False),
            Contrast("first round − base, right edits", FIRST, UNTUNED, decides=False),
            Contrast(
                "first reward, pairs in order: tuned editor's edits − base's",
                PieceFigure("", "round-errors", "first_on_tuned"),
                PieceFigure("", "round-errors", "first_on_base"),
                decides=False,
            ),
            Contrast(
                "second − first reward, pairs of the tuned editor's edits in order",
                PieceFigure("", "round-errors", "second_on_tuned"),
                PieceFigure("", "round-errors", "first_on_tuned"),
                decides=False,
            ),
        ),
        (UNTUNED, FIRST, AGAIN, PASSIVE, SECOND),
    ),
    Claim(
        8,
        "Of the same labels, the pairs themselves (DPO) lift the editor more than the best labelled edits (SFT).",
        "Right edits after each use of the same experts' labels: DPO on their pairs, SFT on the edit of each task that "
        "they rated best in as many steps, RL with the reward model that learnt from them (claim 1).",
        (
            Contrast("DPO − SFT, right edits", PAIRS, LABELLED),
            Contrast("DPO − RL with the learnt reward, right edits", PAIRS, LEARNT, decides=False),
            Contrast("DPO − base, right edits", PAIRS, BASE, decides=False),
            Contrast("SFT − base, right edits", LABELLED, BASE, decides=False),
            Contrast("RL − base, right edits", LEARNT, BASE, decides=False),
        ),
        (BASE, PAIRS, LABELLED, LEARNT),
    ),
)
