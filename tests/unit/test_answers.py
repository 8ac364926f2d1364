"""Answers read from an export: what counts, what is told, and what an edit changes."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from annotation.campaigns import answer_export
from annotation.campaigns import answers as module
from annotation.campaigns.answer_export import AnswerExport, TruncatedExportError, export_answers, read_export
from annotation.campaigns.answers import answers_sha256, changed_annotations, extract_judgements, progress, read_answers
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.kept_answers import KeptAnswer
from annotation.campaigns.labelling import REASONS, result_of
from annotation.campaigns.record import CampaignRecord
from editloop.data.vocabulary import Page
from editloop.errors import EditLoopError
from infra.settings import ServiceSettings

ACCOUNTS = {1: "ada", 2: "bo", 3: "chi"}
REASON = next(iter(REASONS))
GUEST = 9


def page(key: str, *, kind: Any = "task", overlap: int = 2, candidates: tuple[str, ...] = ("x", "y")) -> Page:
    return Page(
        key=key,
        kind=kind,
        task_id=f"task-of-{key}",
        instruction="Move it",
        source="s",
        candidates=candidates,
        images=candidates,
        overlap=overlap,
    )


def said(number: int, user: int, result: list[dict[str, Any]], *, skipped: bool = False) -> dict[str, Any]:
    return {
        "id": number,
        "completed_by": user,
        "updated_by": user,
        "import_id": None,
        "result": result,
        "was_cancelled": skipped,
        "lead_time": 12.5,
        "created_at": "2026-03-02T10:00:00Z",
    }


def rated(*levels: int) -> list[dict[str, Any]]:
    return result_of([{"if": level, "vq": level} for level in levels])


def exported(**pages: list[dict[str, Any]]) -> AnswerExport:
    rows = [
        {"id": 100 + n, "data": {"key": key}, "annotations": given, "total_annotations": len(given)}
        for n, (key, given) in enumerate(pages.items())
    ]
    return read_export(json.dumps(rows).encode())


def campaign(pages: dict[str, Page]) -> Campaign:
    return Campaign(
        key="k",
        name="kitchen",
        project_id=7,
        url="http://studio/projects/7",
        config_sha256="c",
        candidates_sha256="d",
        pages_sha256="e",
        pages=len(pages),
        wanted=sum(one.overlap for one in pages.values()),
        tasks=len(pages),
        places=2,
        tiny=True,
        overlap=2,
        annotators=("ada", "bo", "chi"),
        lead=None,
        gates={},
        seed=0,
    )


def record(pages: dict[str, Page], *, left: dict[str, datetime] | None = None, people: int = 3) -> CampaignRecord:
    """The record of the campaign; the first `people` of ACCOUNTS are its annotators."""
    one = campaign(pages).model_copy(update={"annotators": tuple(ACCOUNTS.values())[:people]})
    return CampaignRecord(one, campaign(pages), {}, ACCOUNTS, left or {}, {}, "run", {})


def test_a_page_is_answered_by_different_people_who_rate_all_of_it_or_say_why_not() -> None:
    pages = {key: page(key) for key in ("whole", "cannot", "alone", "bare", "half", "gone")}
    answers = read_answers(
        exported(
            whole=[said(1, 1, rated(1, 2)), said(2, 2, rated(3, 4))],
            cannot=[said(3, 1, rated(1, 2)), said(4, 3, result_of([], REASON))],
            alone=[said(5, 1, rated(1, 2)), said(6, 1, rated(2, 2))],
            bare=[said(7, 1, rated(1, 2)), said(8, 2, [], skipped=True)],
            half=[said(9, 1, rated(1, 2)), said(10, 2, rated(3))],
        ),
        pages,
        record(pages),
    )
    state = progress(record(pages), pages, answers)
    assert (state.answered, state.pages, state.complete) == (2, 6, False)
    assert (state.annotations, state.wanted) == (7, 12)
    assert state.by_annotator == {"ada": 5, "bo": 1, "chi": 1}
    assert (state.skipped, state.unfinished, state.repeated, state.missing) == (1, 1, 1, 1)
    assert state.cannot == {REASON: 1}
    _, cannot = extract_judgements(pages, answers)
    assert [(one.task_id, one.annotator, one.reason) for one in cannot] == [("task-of-cannot", "chi", REASON)]


def test_a_skip_with_a_reason_is_an_answer() -> None:
    pages = {"p": page("p", overlap=1)}
    answers = read_answers(exported(p=[said(1, 1, result_of([], REASON), skipped=True)]), pages, record(pages))
    state = progress(record(pages), pages, answers)
    assert state.complete
    assert state.skipped == 0


def test_the_later_answer_of_one_person_counts_and_an_unfinished_one_replaces_nothing() -> None:
    pages = {"p": page("p", overlap=1)}
    late_half = said(9, 1, rated(4))
    given = exported(p=[late_half, said(5, 1, rated(3, 3)), said(2, 1, rated(1, 1))])
    found, _ = extract_judgements(pages, read_answers(given, pages, record(pages)))
    assert {(one.instruction_following, one.annotation_id) for one in found} == {(3, 5)}
    assert len(found) == 2


def test_a_candidate_shown_twice_is_judged_at_its_first_place() -> None:
    pages = {"p": page("p", candidates=("x", "y", "x"))}
    found, _ = extract_judgements(pages, read_answers(exported(p=[said(1, 1, rated(4, 2, 1))]), pages, record(pages)))
    assert [(one.candidate_id, one.position, one.visual_quality) for one in found] == [("x", 0, 4), ("y", 1, 2)]


def test_repeats_and_gold_are_kept_apart_from_what_teaches() -> None:
    pages = {kind: page(kind, kind=kind) for kind in ("task", "repeat", "gold")}
    answers = read_answers(
        exported(**{key: [said(n, 1, rated(1, 2))] for n, key in enumerate(pages)}), pages, record(pages)
    )
    assert {one.kind for one in extract_judgements(pages, answers)[0]} == {"task"}
    assert {one.kind for one in extract_judgements(pages, answers, ("repeat", "gold"))[0]} == {"repeat", "gold"}


def test_what_cannot_come_from_the_page_is_told_and_does_not_count() -> None:
    pages = {"p": page("p", overlap=1), "q": page("q", overlap=1)}
    five = rated(4, 2)
    five[0]["value"]["choices"] = ["5"]
    stray = [*rated(1, 1), {"from_name": "if_9", "to_name": "image_9", "type": "choices", "value": {"choices": ["1"]}}]
    answers = read_answers(
        exported(
            p=[said(1, 1, five), said(2, GUEST, five)],
            q=[said(3, 2, stray)],
            lost=[said(4, 3, rated(1, 1))],
        ),
        pages,
        record(pages),
    )
    state = progress(record(pages), pages, answers)
    assert (state.answered, state.unfinished, state.others) == (1, 1, 1)
    scale, control, unknown = state.faults
    assert scale.startswith("Annotation 1 by ada on task 100")
    assert "5" in scale
    assert "if_9" in control
    assert "lost" in unknown
    assert {one.task_id for one in extract_judgements(pages, answers)[0]} == {"task-of-q"}


def test_every_change_of_an_annotators_answer_changes_the_digest_and_nothing_else_does() -> None:
    pages = {key: page(key) for key in "pq"}

    def digest(export: AnswerExport) -> str:
        return answers_sha256(read_answers(export, pages, record(pages)).digests)

    first, second = said(1, 1, rated(1, 2)), said(2, 2, rated(3, 4))
    before = digest(exported(p=[first, second], q=[]))
    again = {**first, "result": first["result"][::-1], "lead_time": 99.0, "prediction": {}}
    assert digest(exported(q=[], p=[second, again])) == before
    assert digest(exported(p=[first, second, said(9, GUEST, rated(1, 1))], q=[])) == before, "a guest changes nothing"
    for changed in (
        exported(p=[said(1, 1, rated(1, 3)), second], q=[]),
        exported(p=[first], q=[]),
        exported(p=[first, second], q=[said(3, 2, rated(1, 1))]),
        exported(p=[first], q=[second]),
        exported(p=[said(1, 2, rated(1, 2)), second], q=[]),
        exported(p=[said(1, 1, rated(1, 2), skipped=True), second], q=[]),
        exported(p=[said(4, 1, rated(1, 2)), second], q=[]),
    ):
        assert digest(changed) != before


def kept(answer: dict[str, Any], key: str = "p") -> KeptAnswer:
    return KeptAnswer(
        annotation_id=answer["id"],
        queue=False,
        page=key,
        annotator=ACCOUNTS[answer["completed_by"]],
        skipped=answer["was_cancelled"],
        result=answer["result"],
        seconds=answer["lead_time"],
        created_at=answer["created_at"],
    )


ADAS = said(1, 1, rated(1, 2))
ADAS_LEVELS, BOS_LEVELS = ({"if": 1, "vq": 1}, {"if": 2, "vq": 2}), ({"if": 4, "vq": 4}, {"if": 4, "vq": 4})
BO_CHANGED_IT = {**ADAS, "result": rated(4, 4), "updated_by": 2}
BO_WROTE_IT = {**said(7, 1, rated(4, 4)), "updated_by": 2}
SOMEBODY_IMPORTED_IT = {**said(7, 1, rated(4, 4)), "updated_by": None, "import_id": 5}
ADA_IS_GONE = {**ADAS, "completed_by": None, "updated_by": None}
WE_IMPORTED_IT = {**said(7, 1, rated(1, 2)), "updated_by": None, "import_id": 1, "created_at": "2026-09-09T10:00:00Z"}


@pytest.mark.parametrize(
    ("answer", "copied", "standing", "levels"),
    [
        (ADAS, False, "own", ADAS_LEVELS),
        (BO_CHANGED_IT, False, "changed by others", BOS_LEVELS),
        (BO_CHANGED_IT, True, "kept", ADAS_LEVELS),
        (BO_WROTE_IT, True, "changed by others", BOS_LEVELS),
        (SOMEBODY_IMPORTED_IT, True, "changed by others", BOS_LEVELS),
        (ADA_IS_GONE, False, "deleted account", ADAS_LEVELS),
        (ADA_IS_GONE, True, "kept", ADAS_LEVELS),
        (WE_IMPORTED_IT, True, "kept", ADAS_LEVELS),
        (said(3, GUEST, rated(4, 4)), True, "guest", BOS_LEVELS),
    ],
)
def test_an_answer_counts_as_its_author_left_it(
    answer: dict[str, Any],
    copied: bool,
    standing: str,
    levels: tuple[dict[str, int], ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "read_kept_answers", lambda key: {1: kept(ADAS)} if copied else {})
    pages = {"p": page("p", overlap=1)}
    answers = read_answers(exported(p=[answer]), pages, record(pages))
    (read,) = answers.given
    assert (read.standing, read.ratings) == (standing, levels)
    assert read.annotator == ("ada" if standing in ("own", "kept") else None)
    if read.annotator:
        assert (read.annotation_id, read.created_at) == (1, ADAS["created_at"])
        assert answers_sha256(answers.digests) == answers_sha256(
            read_answers(exported(p=[ADAS]), pages, record(pages)).digests
        ), "whatever was done to it, the campaign's answers are the same"


def test_an_import_does_not_take_the_place_of_an_answer_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_kept_answers", lambda key: {1: kept(ADAS)})
    pages = {"p": page("p", overlap=1)}
    answers = read_answers(exported(p=[said(1, 1, rated(3, 3)), WE_IMPORTED_IT]), pages, record(pages))
    assert [(read.annotation_id, read.standing) for read in answers.given] == [(1, "own"), (7, "changed by others")]


def test_who_left_has_answered_until_then_and_the_others_have_what_they_are_asked() -> None:
    pages = {"task": page("task"), "gold": page("gold", kind="gold", overlap=3)}
    then, later = "2026-03-02T10:00:00Z", "2026-03-05T10:00:00Z"
    one = record(pages, left={"chi": datetime(2026, 3, 3, tzinfo=UTC)}, people=2)
    before, after = said(1, 3, rated(1, 2)) | {"created_at": then}, said(2, 3, rated(1, 2)) | {"created_at": later}
    given = exported(task=[before, said(3, 1, rated(1, 2))], gold=[after, said(4, 1, rated(1, 2))])
    state = progress(one, pages, read_answers(given, pages, one))
    assert state.by_annotator == {"ada": 2, "bo": 0, "chi": 1}
    assert (state.answered, state.annotations, state.wanted, state.others) == (1, 3, 4, 1), "gold is asked of two now"
    stayed = exported(task=[before, said(3, 1, rated(1, 2))], gold=[before | {"id": 5}, said(4, 1, rated(1, 2))])
    state = progress(one, pages, read_answers(stayed, pages, one))
    assert (state.answered, state.wanted) == (1, 5), "gold is asked of two beside the answer of who left"


def test_changed_annotations_are_named() -> None:
    before, now = {1: "a", 2: "b", 3: "c"}, {1: "a", 2: "x", 4: "d"}
    told = changed_annotations(before, now)
    assert told == "1 edited (annotation 2), 1 added (annotation 4), 1 deleted (annotation 3)"


def test_an_export_cut_anywhere_is_seen_to_be_cut() -> None:
    export = exported(p=[said(1, 1, rated(1, 2))], q=[said(2, 2, rated(3, 4))])
    whole = export.data
    assert len(export.tasks) == 2
    for end in range(len(whole)):
        with pytest.raises(TruncatedExportError):
            read_export(whole[:end])


WHOLE_EXPORT = exported(p=[said(1, 1, rated(1, 2))], q=[])
WHOLE = WHOLE_EXPORT.data


@contextmanager
def studio(exports: list[tuple[int, bytes, int]]) -> Iterator[tuple[ServiceSettings, list[str]]]:
    """A server of a project of two tasks that gives (status, body, bytes that fail to come) one after another."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, missing = (200, b'{"task_number": 2}', 0)
            if "/export" in self.path:
                asked.append(self.path)
                status, body, missing = exports[min(len(asked), len(exports)) - 1]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + missing))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        yield ServiceSettings.model_validate({"label_studio_url": url, "label_studio_token": "t"}), asked
    finally:
        server.shutdown()
        server.server_close()


CUTS = {
    "half a body": (200, WHOLE[:40], 0),
    "a task too few": (200, exported(p=[]).data, 0),
    "a page of HTML": (200, b"<html>", 0),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_export_is_asked_for_again_and_then_told(cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_export, "SECONDS_BETWEEN", 0.0)
    with studio([CUTS[cut], (200, WHOLE, 0)]) as (settings, asked):
        assert export_answers(settings, campaign({})) == WHOLE_EXPORT
        assert len(asked) == 2
    with studio([CUTS[cut]]) as (settings, asked):
        with pytest.raises(EditLoopError, match=r"export of campaign kitchen .* was cut off 3 times"):
            export_answers(settings, campaign({}))
        assert len(asked) == 3


def test_an_export_whose_connection_breaks_is_asked_for_again() -> None:
    with studio([(200, WHOLE[:40], 100), (200, WHOLE, 0)]) as (settings, asked):
        assert export_answers(settings, campaign({})) == WHOLE_EXPORT
        assert len(asked) == 2


def test_a_refused_token_is_told_at_once() -> None:
    with studio([(401, b"{}", 0)]) as (settings, asked):
        with pytest.raises(EditLoopError, match="refuses the token"):
            export_answers(settings, campaign({}))
        assert len(asked) == 1
