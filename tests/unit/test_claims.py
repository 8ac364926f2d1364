"""The claims' framework with stand-in pieces: what is kept, what is made again, what verdicts the figures give."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editloop.content import read_manifest
from editloop.data.edits_file import read_edits
from editloop.datasets.preference_groups import read_groups
from editloop.errors import EditLoopError
from editloop.studies.claims.catalogue import PIECES
from editloop.studies.claims.claims import claim_record, complete_seeds, write_claims
from editloop.studies.claims.pairs import LEARNT_SPLITS, write_best_labelled
from editloop.studies.claims.running import (
    PiecesProgress,
    UnfinishedPieces,
    planned_seconds,
    run_pieces,
    waiting_pieces,
)
from editloop.studies.claims.settings import SIZES, STANDARD
from editloop.studies.claims.statements import CLAIMS, Claim
from editloop.studies.claims.statistics import (
    Contrast,
    PieceFigure,
    claim_verdict,
    estimate_over_seeds,
    format_estimate,
)
from editloop.studies.claims.store import FIGURES, PieceCost, Store
from editloop.studies.claims.worlds import TASKS, draw_seed, rate_few
from editloop.studies.comparison.world import draw_candidates, rate_candidates
from tests.pair_datasets import write_pairs

RIGHT, BASE = PieceFigure("right", "tuned", "right"), PieceFigure("base", "base", "right")


def store(folder: Path, **changes: int) -> Store:
    return Store(folder, STANDARD.model_copy(update=changes), "tests.stand_in_pieces")


def run(
    found: Store, names: list[str], seeds: int = 1, seconds: float = math.inf, processes: int = 2
) -> tuple[UnfinishedPieces, list[PiecesProgress]]:
    states: list[PiecesProgress] = []
    waiting = waiting_pieces(found, names, range(seeds))
    return run_pieces(found, waiting, processes=processes, seconds=seconds, tell=states.append), states


def test_the_world_of_few_labels_grows_until_it_has_something_to_learn_from_and_to_choose_by(tmp_path: Path) -> None:
    """Of this seed's first twelve tasks none falls into the validation split."""
    seed = 1
    drawn = draw_candidates(tmp_path, tasks=20, seed=draw_seed(seed, TASKS))
    rate_candidates(drawn, tmp_path / "twelve", seed=seed, first=12)
    rate_few(drawn, tmp_path / "few", seed=seed, first=12)
    twelve, few = (read_manifest(tmp_path / name)["facts"]["splits"] for name in ("twelve", "few"))
    assert twelve["validation"]["pairs"] == 0
    assert few["validation"]["groups"] == 1
    assert few["train"]["pairs"] >= twelve["train"]["pairs"] > 0


def test_the_best_labelled_edit_of_each_task_is_its_target(tmp_path: Path) -> None:
    """Of the splits that every use of the labels reads; of equal ratings the first."""
    dataset = write_pairs(tmp_path / "dataset")
    assert write_best_labelled(dataset, tmp_path / "labelled") == 6
    rows = {row.id: row for row in read_edits(tmp_path / "labelled")}
    assert rows.keys() == {f"{split}-{number}" for split in ("train", "validation") for number in range(3)}
    for split in LEARNT_SPLITS:
        for group in read_groups(dataset, split):
            row = rows[group.task_id]
            assert row.target is not None
            assert row.instruction == group.instruction
            for picture, path in ((group.source, row.source), (group.edits[0], row.target)):
                np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)


def test_pieces_run_side_by_side_in_order_and_are_found_again(tmp_path: Path) -> None:
    one = store(tmp_path)
    outcome, states = run(one, ["third", "beside"])
    assert outcome == ({}, [])
    first, beside, second = (one.figures(name, 0) or {} for name in ("first", "beside", "second"))
    assert max(first["begun"], beside["begun"]) < min(first["ended"], beside["ended"]), "one after the other"
    assert second["begun"] >= first["ended"]
    assert second["letters"] == len("for the next")
    assert first["threads"] == 1
    assert [states[-1].done, states[-1].pieces, states[-1].running, states[-1].left] == [4, 4, [], 0]
    assert waiting_pieces(one, ["third", "beside"], range(1)) == []
    assert waiting_pieces(one, ["third"], range(2)) == [("first", 1), ("second", 1), ("third", 1)]


def test_another_setting_is_another_piece_only_where_it_counts(tmp_path: Path) -> None:
    run(store(tmp_path), ["third"])
    assert waiting_pieces(store(tmp_path, steps=3), ["third"], range(1)) == [("second", 0), ("third", 0)]
    assert waiting_pieces(store(tmp_path, passes=3), ["third"], range(1)) == []


def test_a_piece_that_fails_takes_what_needs_it_and_leaves_the_rest(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    one = store(tmp_path)
    outcome, _ = run(one, ["third", "beside"])
    assert list(outcome.failed) == [("second", 0)]
    assert outcome.waiting == [("third", 0)]
    assert "ValueError: planted" in outcome.failed["second", 0].read_text()
    assert one.figures("beside", 0) is not None
    (tmp_path / "fail").unlink()
    assert run(one, ["third"])[0] == ({}, [])
    assert one.figures("third", 0) is not None


def test_no_piece_begins_that_would_end_too_late(tmp_path: Path) -> None:
    one = store(tmp_path)
    outcome, _ = run(one, ["slow", "beside"], seconds=10)
    assert outcome.waiting == [("slow", 0)]
    assert one.figures("beside", 0) is not None


def test_what_verdicts_hang_on_comes_first_and_the_rest_may_be_missing(tmp_path: Path) -> None:
    one = store(tmp_path)
    _, states = run(one, ["extra", "third"], seeds=2, processes=1)
    assert [state.ended for state in states if state.ended] == [
        *((name, seed) for seed in range(2) for name in ("first", "second", "third")),
        *(("extra", seed) for seed in range(2)),
    ]
    claim = Claim(
        1,
        "",
        "",
        (
            Contrast("", PieceFigure("", "third", "letters"), None),
            Contrast("", PieceFigure("", "extra", "seed"), None, decides=False),
        ),
        (),
    )
    rows = complete_seeds(one, claim, 2)
    (one.folder("extra", 0) / FIGURES).unlink()
    assert [claim.contrasts[1].of(row) for row in rows] == [0.0, 1.0]
    assert [
        len(complete_seeds(one, claim, 2)),
        len(claim_record(claim, complete_seeds(one, claim, 2))["contrasts"][1]["values"]),
    ] == [2, 1]
    (one.folder("third", 0) / FIGURES).unlink()
    assert len(complete_seeds(one, claim, 2)) == 1


def test_no_verdict_hangs_on_a_piece_that_is_made_beside() -> None:
    for claim in CLAIMS:
        deciding = [one for contrast in claim.contrasts if contrast.decides for one in (contrast.plus, contrast.minus)]
        for figure in filter(None, deciding):
            assert not any(PIECES[name].optional for name in Store(Path("x"), STANDARD).ordered([figure.piece]))


def test_an_interrupt_stops_what_runs_and_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = store(tmp_path)

    def interrupt(state: PiecesProgress) -> None:
        if state.running == [("slow", 0)] and one.figures("beside", 0) is not None:
            while not (tmp_path / "slow-began").exists():
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pieces(one, [("slow", 0), ("beside", 0)], processes=2, seconds=math.inf, tell=interrupt)
    assert (tmp_path / "slow-stopped").exists(), "it was not asked to end"
    assert one.figures("slow", 0) is None
    assert one.figures("beside", 0) is not None


def test_the_plan_is_the_schedule_of_two_processes(tmp_path: Path) -> None:
    one = store(tmp_path)
    assert planned_seconds(one, waiting_pieces(one, ["third"], range(1)), 2) == 3, "a chain is as long as its parts"
    assert planned_seconds(one, waiting_pieces(one, ["first", "beside"], range(3)), 2) == 3
    assert planned_seconds(one, waiting_pieces(one, ["first", "beside"], range(3)), 1, pace=2.0) == 12


def seeds_of(*differences: float) -> list[dict[str, dict[str, float]]]:
    return [{"base": {"right": 0.5}, "tuned": {"right": 0.5 + one}} for one in differences]


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ((0.04, 0.05, 0.06), "held"),
        ((-0.04, -0.05, -0.06), "not held"),
        ((0.10, -0.05, 0.02), "undecided"),
        ((0.04,), "undecided"),
        ((), "not measured"),
        ((float("nan"),), "not measured"),
    ],
)
def test_a_verdict_needs_an_interval_clear_of_zero(differences: tuple[float, ...], said: str) -> None:
    assert claim_verdict([estimate_over_seeds(Contrast("", RIGHT, BASE), seeds_of(*differences))]) == said


def test_every_deciding_contrast_must_hold_and_the_others_need_not() -> None:
    seeds = [{"a": {"x": 0.1 + 0.01 * k, "y": -0.1 - 0.01 * k}} for k in range(3)]
    up, down = Contrast("", PieceFigure("", "a", "x"), None), Contrast("", PieceFigure("", "a", "y"), None)
    assert claim_verdict([estimate_over_seeds(up, seeds), estimate_over_seeds(down, seeds)]) == "not held"
    assert (
        claim_verdict([estimate_over_seeds(up, seeds), estimate_over_seeds(down._replace(decides=False), seeds)])
        == "held"
    )


def test_intervals_are_student_s_and_paired() -> None:
    rows = [
        {"base": {"right": base}, "tuned": {"right": base + 0.02 + off}}
        for base, off in zip((0.1, 0.5, 0.9), (-0.01, 0, 0.01), strict=True)
    ]
    found = estimate_over_seeds(Contrast("", RIGHT, BASE), rows)
    half = 4.302652729911275 * 0.01 / math.sqrt(3)  # t(0.975, 2)
    assert found.mean == pytest.approx(0.02)
    assert found.ci95 == pytest.approx((0.02 - half, 0.02 + half))
    assert format_estimate(found, signed=True) == "+2.0 points (-0.5 to +4.5)"


def test_a_seed_without_a_figure_is_left_out_never_made_up() -> None:
    found = estimate_over_seeds(Contrast("", RIGHT, BASE), seeds_of(0.1, float("nan"), 0.3))
    assert found.values == pytest.approx([0.1, 0.3])


def test_every_figure_of_a_claim_has_its_piece() -> None:
    for claim in CLAIMS:
        assert set(claim.pieces) <= set(PIECES), claim.number
        assert any(contrast.decides for contrast in claim.contrasts)
        assert all(len(trace.figures) == len(claim.places) for trace in claim.traces)
    assert [claim.number for claim in CLAIMS] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_pieces_need_and_depend_on_is_there() -> None:
    for piece in PIECES.values():
        assert set(piece.needs) <= set(PIECES), piece.name
        assert set(piece.settings) <= set(type(STANDARD).model_fields), piece.name
    for settings in SIZES.values():
        assert len({Store(Path("x"), settings).address(name, 0) for name in PIECES}) == len(PIECES)


def test_the_page_tells_what_is_known_and_says_what_is_not(tmp_path: Path) -> None:
    one = Store(tmp_path, STANDARD)
    for seed, gain in enumerate((0.05, 0.06, 0.07)):
        one.work("score", seed)
        figures = {"accuracy": 0.6, "accuracy_avg": 0.6 + gain, "within_group": 0.3, "within_group_avg": float("nan")}
        one.keep("score", seed, figures, PieceCost(60.0, 50.0))
    found = write_claims(one, 3)
    assert [claim["verdict"] for claim in found["claims"]] == [*["not measured"] * 3, "held", *["not measured"] * 4]
    assert json.loads((tmp_path / "claims.json").read_text())["claims"][3]["seeds"] == 3
    page = (tmp_path / "page.html").read_text()
    assert "+6.0 points (+3.5 to +8.5)" in page
    assert page.count("No seed has all") == 7
    assert "3 pieces took 3 minutes, one after the other, and 2 of a processor." in page
    assert "<script" not in page
    written = (tmp_path / "claims.md").read_text()
    assert "| 4 | Avg@K beats one pass. | held (3 seeds) | " in written
    assert "4. Clear held-out pairs that EditScore orders" in written
    np.testing.assert_equal(claim_record(CLAIMS[3], [])["contrasts"][0]["mean"], None)


def test_numbers_of_claims_that_are_not_there_are_refused(tmp_path: Path) -> None:
    from editloop.studies.claims.claims import plan_claims

    with pytest.raises(EditLoopError, match="claims 9: there are 1, 2, 3, 4, 5, 6, 7, 8"):
        plan_claims(Store(tmp_path, STANDARD), [1, 9], 1, 2)
