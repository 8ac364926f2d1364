"""What a TrainJob's pods read and write, through object storage: nothing but that is shared with the step.

The step sends the training as a folder named by its content: the job file, in which addresses stand for the folders it
reads. The pods fetch it, keep their checkpoints in the training's mirror, and leave the result there by its address.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, JsonValue

from editloop.content import complete_folder, write_json
from editloop.object_folders import fetch_folder, put_folder
from editloop.training.checkpoint_mirror import CheckpointMirror
from editloop.training.job import RESULT_FOLDER

SENT_JOB = "sent.json"
"""File of the folder that is sent."""
RESULT_ADDRESS, HEARTBEAT = "result.json", "step.json"
"""Files of the mirror: where the result is, and what the waiting step changes as long as it lives."""
PATHS = ("checkpoints", "output")
"""Fields of a job file that the pods set."""


class SentJob(BaseModel):
    """A training as it is sent to the pods."""

    module: str
    """Python module that each rank runs."""
    name: str
    """Name of the training's folder."""
    processes: int
    """Ranks of each pod."""
    inputs: list[str]
    """Addresses that stand in `job` for folders."""
    job: dict[str, JsonValue]
    """The job file."""


class DeliveredResult(BaseModel):
    """Where the pods left a training's result."""

    job: str
    """Address of the training that it is the result of."""
    result: str
    """Address of the result's folder."""


class ReceivedJob(NamedTuple):
    """A training as a pod runs it."""

    module: str
    job_file: Path
    processes: int


def send_job(module: str, job_file: Path, processes: int, objects: str) -> str:
    """Send a training and all folders that it reads.

    Args:
        module: Python module that each rank runs.
        job_file: The training's job file.
        processes: Ranks of each pod.
        objects: s3://BUCKET/PREFIX of folders by content address.

    Returns:
        Address of the training. Equal work has equal addresses, wherever its folders lie.
    """
    job: dict[str, JsonValue] = json.loads(job_file.read_text())
    for field in PATHS:
        job.pop(field)
    addresses = {text: put_folder(Path(text), objects) for text in sorted(set(_folders(job)))}
    replaced = _replace(job, addresses)
    assert isinstance(replaced, dict)
    sent = SentJob(
        module=module,
        name=job_file.parent.name,
        processes=processes,
        inputs=sorted(set(addresses.values())),
        job=replaced,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "job"
        with complete_folder(folder) as out:
            write_json(out / SENT_JOB, sent.model_dump())
        return put_folder(folder, objects)


def receive_job(address: str, work: Path) -> ReceivedJob:
    """Fetch a training and all folders that it reads.

    Args:
        address: Address of the training.
        work: Folder to work in; the same on all pods.

    Returns:
        What to run. The job file is in the training's folder.
    """
    sent = _sent_job(address, work)
    places = {name: str(work / "inputs" / name.rpartition("/")[2]) for name in sent.inputs}
    for name, place in places.items():
        fetch_folder(name, Path(place))
    folder = work / sent.name
    shutil.rmtree(folder, ignore_errors=True)  # a container that is started again begins as one on a new node does
    folder.mkdir(parents=True)
    job = _replace(sent.job, places)
    assert isinstance(job, dict)
    job_file = folder / "job.json"
    write_json(job_file, job | dict(zip(PATHS, (str(folder), str(folder / RESULT_FOLDER)), strict=True)))
    return ReceivedJob(sent.module, job_file, sent.processes)


def _sent_job(address: str, work: Path) -> SentJob:
    folder = work / "job"
    fetch_folder(address, folder)
    return SentJob.model_validate_json((folder / SENT_JOB).read_text())


def deliver_result(mirror: CheckpointMirror, job: str, objects: str) -> None:
    """Send a training's result, then say where it is.

    Args:
        mirror: Mirror of the training's folder.
        job: Address of the training.
        objects: s3://BUCKET/PREFIX of folders by content address.
    """
    delivered = DeliveredResult(job=job, result=put_folder(mirror.folder / RESULT_FOLDER, objects))
    mirror.remote.write(RESULT_ADDRESS, delivered.model_dump_json().encode())


def is_delivered(mirror: CheckpointMirror, job: str) -> bool:
    """Return whether the pods have left the result of a training.

    Args:
        mirror: Mirror of the training's folder.
        job: Address of the training.
    """
    return _delivered(mirror, job) is not None


def fetch_result(mirror: CheckpointMirror, job: str) -> None:
    """Fetch a training's result, and the files of its curves, into its folder.

    Args:
        mirror: Mirror of the training's folder.
        job: Address of the training, whose result was delivered.
    """
    delivered = _delivered(mirror, job)
    assert delivered is not None
    fetch_folder(delivered.result, mirror.folder / RESULT_FOLDER)
    mirror.restore_loose_files()


def _delivered(mirror: CheckpointMirror, job: str) -> DeliveredResult | None:
    text = mirror.remote.read(RESULT_ADDRESS)
    delivered = DeliveredResult.model_validate_json(text) if text is not None else None
    return delivered if delivered and delivered.job == job else None


def _folders(value: JsonValue) -> Iterator[str]:
    """Yield the strings of a JSON value that are paths of folders."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _folders(key)
            yield from _folders(item)
    elif isinstance(value, list):
        for item in value:
            yield from _folders(item)
    elif isinstance(value, str) and os.sep in value and "://" not in value and Path(value).is_dir():
        yield value


def _replace(value: JsonValue, places: Mapping[str, str]) -> JsonValue:
    """Return a JSON value with other strings in the place of some."""
    if isinstance(value, dict):
        return {places.get(key, key): _replace(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, places) for item in value]
    return places.get(value, value) if isinstance(value, str) else value
