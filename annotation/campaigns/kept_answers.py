"""The copy of a campaign's answers in its record: what each annotator answered, as it was last seen.

A copy settles whose an answer is that somebody else changed or whose account was deleted, and brings answers back whose
task or project was deleted. There are two files, written in turn, so that one is whole at any time; a signed tag of the
run tells which.
"""

import gzip
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from annotation.campaigns.record import (
    KEPT,
    KEY_TAG,
    KIND_TAG,
    RECORDS,
    SIGNATURE_TAG,
    SIGNER_TAG,
    keep_files,
    now,
    read_file,
)
from editloop.content import sha256_bytes
from editloop.data.vocabulary import Record
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.signing import TextSignature, sign_bytes, verify_bytes

if TYPE_CHECKING:
    from mlflow.entities import Run

COPY_TAG = "editloop.copy"
NAMES = ("answers-0.jsonl.gz", "answers-1.jsonl.gz")
ResultItem = dict[str, Any]
"""What one control of a page says, as Label Studio holds it: {"from_name", "to_name", "type", "value"}."""


class KeptAnswer(Record):
    """An annotator's answer as the campaign's record keeps it."""

    annotation_id: int
    queue: bool
    """Whether it is the lead's, in the queue of conflicts."""
    page: str
    """Key of the page."""
    annotator: str
    skipped: bool
    result: list[ResultItem]
    seconds: float | None
    created_at: str


class AnswerCopy(Record):
    """Which copy of a campaign's answers is the latest."""

    key: str
    """The campaign's key."""
    answers_sha256: str
    """Content address of the answers."""
    name: str
    sha256: str
    """Name and sha256 of the file."""
    at: datetime


def latest_copy(key: str) -> AnswerCopy | None:
    """Return the latest copy of a campaign's answers; None where there is none.

    Args:
        key: The campaign's key.

    Raises:
        SignatureError: No trusted key signed it.
    """
    run = _run(key)
    return _copy(run) if run else None


def read_kept_answers(key: str) -> dict[int, KeptAnswer]:
    """Return the answers of a campaign's latest copy, by annotation id; none where there is no copy.

    Args:
        key: The campaign's key.

    Raises:
        EditLoopError: The copy is not what was signed.
    """
    run = _run(key)
    copy = _copy(run) if run else None
    if run is None or copy is None:
        return {}
    data = read_file(run.info.run_id, copy.name)
    if sha256_bytes(data) != copy.sha256 or copy.key != key:
        raise EditLoopError(
            f"The copy of campaign {key}'s answers in MLflow (run {run.info.run_id}, {copy.name}) is not what was "
            "signed: it was damaged or replaced. Restore it from a back-up of MLflow's artifacts."
        )
    answers = (KeptAnswer.model_validate_json(line) for line in gzip.decompress(data).splitlines())
    return {answer.annotation_id: answer for answer in answers}


def keep_answers(key: str, answers: Iterable[KeptAnswer], answers_sha256: str) -> None:
    """Replace the copy of a campaign's answers.

    Args:
        key: The campaign's key.
        answers: The answers, those of the lead's queue included.
        answers_sha256: Their content address.

    Raises:
        EditLoopError: EDITLOOP_SIGNING_KEY holds no usable key.
    """
    from mlflow.entities import RunTag

    api = tracking.client()
    run = _run(key)
    before = _copy(run) if run else None
    name = NAMES[1] if before and before.name == NAMES[0] else NAMES[0]
    data = gzip.compress("".join(answer.model_dump_json() + "\n" for answer in answers).encode(), mtime=0)
    copy = AnswerCopy(key=key, answers_sha256=answers_sha256, name=name, sha256=sha256_bytes(data), at=now())
    text = copy.model_dump_json()
    signature = sign_bytes(text.encode())
    if run is None:
        experiment = tracking.require_experiment(api, RECORDS)
        run = api.create_run(experiment, run_name=f"answers of {key}", tags={KEY_TAG: key, KIND_TAG: KEPT})
    keep_files(run.info.run_id, {name: data})
    tags = {COPY_TAG: text, SIGNER_TAG: signature.key, SIGNATURE_TAG: signature.value}
    tracking.log_batch(api, run.info.run_id, tags=[RunTag(tag, value) for tag, value in tags.items()])
    api.set_terminated(run.info.run_id)


def _run(key: str) -> "Run | None":
    from mlflow.entities import ViewType

    api = tracking.client()
    experiment = tracking.find_experiment(api, RECORDS)
    if experiment is None:
        return None
    query = f"tags.`{KEY_TAG}` = {tracking.quoted(key)} and tags.`{KIND_TAG}` = '{KEPT}'"
    runs: list[Run] = tracking.all_pages(
        api.search_runs, [experiment], query, ViewType.ACTIVE_ONLY, order_by=["attributes.start_time DESC"], limit=1
    )
    return runs[0] if runs else None


def _copy(run: "Run") -> AnswerCopy | None:
    tags = run.data.tags
    text = tags.get(COPY_TAG)
    if text is None:  # it is being written for the first time
        return None
    verify_bytes(text.encode(), TextSignature(tags.get(SIGNER_TAG, ""), tags.get(SIGNATURE_TAG, "")))
    return AnswerCopy.model_validate_json(text)
