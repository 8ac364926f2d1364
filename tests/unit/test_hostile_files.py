"""Every reader of files from outside, given what no honest file is: a short message says so soon; none waits."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from PIL import Image
from pydantic import AfterValidator, BaseModel

from annotation.campaigns.campaign_settings import campaign_name, read_campaign_settings
from editloop.data.picture_file import png_bytes
from editloop.errors import EditLoopError
from editloop.settings_file import validate_settings
from editloop.terminal import text_console
from editloop.text_file import file_bytes
from tests.hostile_readers import READERS, backbone, weights
from tests.pixel_judge import picture

SECONDS = 20
"""Longest time for a reader: it has nothing to compute."""
MANY_KEYS = json.dumps({f"key-{number}": number for number in range(100_000)})
CONTENTS: dict[str, bytes] = {
    "levels": b"[" * 100_000,
    "levels that end": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "100,000 keys": MANY_KEYS.encode(),
    "100,000 keys in a list": f"[{MANY_KEYS}]".encode(),
    "a long cell": b"key,candidate,score\n" + b"x" * 1_000_000 + b",left,1\n",
    "no UTF-8": b"\xff\xfe" * 100,
    "NULs": b"\0" * 1000,
    "a number of 10,000 digits": b'{"key": ' + b"9" * 10_000 + b"}",
    "a lying header": struct.pack("<Q", 2**62) + b"{}",
    "an alias bomb": b"a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (n + 1, n + 1, b", ".join([b"*%c" % n] * 10)) for n in range(97, 106)),
}
KINDS = ("pipe", "device", "folder")
HARMLESS = {("a configuration", "100,000 keys"), ("a configuration", "100,000 keys in a list")}
"""What is no fault there: a configuration may say what it likes, beside its layers and types."""


@contextmanager
def soon() -> Iterator[None]:
    """Fail where the block takes longer than SECONDS, as it does where a pipe is opened and nobody writes."""

    def late(*_: object) -> None:
        raise AssertionError(f"not done within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def plant(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match content:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case _:
            path.write_bytes(CONTENTS[content])


@pytest.mark.parametrize("content", [*KINDS, *CONTENTS])
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_refuses_what_no_honest_file_is(reader: str, content: str, tmp_path: Path) -> None:
    if (reader, content) in HARMLESS:
        return
    name, read, *_ = READERS[reader]
    path = tmp_path / "input" / name
    plant(path, content)
    with pytest.raises(EditLoopError) as caught, soon():
        read(path)
    message = str(caught.value)
    assert len(message) < 8000, message[:500]
    assert all(line.isprintable() for line in message.splitlines())


@pytest.mark.parametrize(("kind", "words"), [("pipe", "a pipe"), ("device", "a device")])
def test_what_is_no_file_is_not_read_at_all(kind: str, words: str, tmp_path: Path) -> None:
    plant(tmp_path / "x", kind)
    with pytest.raises(OSError) as caught, soon():  # noqa: PT011 - its strerror follows
        file_bytes(tmp_path / "x")
    assert caught.value.strerror == words


def test_no_more_is_read_than_a_reader_takes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(3000))
    assert file_bytes(tmp_path / "x", 3000) == bytes(3000)
    with pytest.raises(OSError, match="larger than 2 KiB"):
        file_bytes(tmp_path / "x", 2999)


def test_a_message_is_bounded_whatever_it_lists() -> None:
    began = time.monotonic()
    parts = ("x" * 5_000_000, "\n" * 1_000, "?" * 100_000, "https://" * 100_000)
    message = str(EditLoopError("".join(parts)))
    assert time.monotonic() - began < 10
    assert len(message) < 5_000
    assert "characters more" in message
    assert message.endswith("lines more")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model.safetensors": None}, "no plain file"),
        ({"model.safetensors.index.json": {"weight_map": {"a": "../x.safetensors"}}}, "of that folder"),
        ({"model.safetensors.index.json": {"weight_map": {"a": "/x.safetensors"}}}, "of that folder"),
        ({"model.safetensors.index.json": {"weight_map": {"a": "x.bin"}}}, "of that folder"),
        ({"model.safetensors.index.json": {"weight_map": {"a": f"{'x' * 300}.safetensors"}}}, "of that folder"),
        ({"config.json": {"vision": {"num_layers": 3_000_000}}}, "at most 1,000 layers"),
    ],
    ids=[
        "a pipe as a shard",
        "a shard above",
        "a shard elsewhere",
        "a pickle as a shard",
        "a name too long",
        "3 million layers",
    ],
)
def test_a_models_folder_that_no_publisher_writes_is_refused(files: dict[str, Any], words: str, tmp_path: Path) -> None:
    for name, content in files.items():
        path = tmp_path / name
        if content is None:
            os.mkfifo(path)
        else:
            path.write_text(json.dumps(content))
    with pytest.raises(EditLoopError, match=words), soon():
        backbone(tmp_path / "config.json") if "config.json" in files else weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_campaigns_guidelines_are_a_file_of_text(kind: str, tmp_path: Path) -> None:
    plant(tmp_path / "text", kind)
    (tmp_path / "campaign.yaml").write_text("name: kitchen\nguidelines: text\n")
    with pytest.raises(EditLoopError, match="guidelines = text: a "), soon():
        read_campaign_settings(tmp_path / "campaign.yaml")


def bomb(chunk: bytes, data: bytes) -> bytes:
    """A PNG with a chunk of this name before its pixels."""
    honest = png_bytes(Image.fromarray(picture(5)))
    body = chunk + data
    return honest[:33] + struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body)) + honest[33:]


@pytest.mark.parametrize(
    "data",
    [
        bomb(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(300_000_000), 1)),
        bomb(b"zTXt", b"x\0\0" + zlib.compress(bytes(300_000_000), 1)),
        bomb(b"iCCP", b"x\0\0" + zlib.compress(bytes(300_000_000), 1)),
        bomb(b"iCCP", b"x\0\0" + zlib.compress(bytes(900_000), 1)),
        bomb(b"eXIf", b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + b"\x12\1\3\0\1\0\0\0\xff\xff\0\0" * 65_535),
        bomb(b"eXIf", b"II*\0" + b"\xff" * 1_000_000),
        png_bytes(Image.fromarray(picture(5))) + bytes(10_000_000),
    ],
    ids=["iTXt", "zTXt", "profile", "profile that is none", "EXIF of many tags", "EXIF that is none", "a long tail"],
)
def test_an_images_metadata_takes_neither_memory_nor_time(data: bytes) -> None:
    """It is read, or refused in one line, within little more memory than its file takes."""
    code = (
        "import resource, sys; from editloop.data.picture_file import read_picture; "
        "from editloop.errors import EditLoopError; data = sys.stdin.buffer.read(); "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: print(read_picture(data, 'x').size)\n"
        "except EditLoopError as error: print(str(error))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=60, check=True)
    shown, megabytes = done.stdout.decode().splitlines()
    assert shown == "(16, 16)" or shown.startswith("x: ")
    assert int(megabytes) < 100, f"{megabytes} MiB"


@pytest.mark.parametrize("name", ["[/red]", "a/../b", ":smile: [bold]"])
def test_brackets_are_a_campaigns_name_as_people_write_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign_name(name) == name
    text_console().print(f"campaign {name} is open")
    assert capsys.readouterr().out == f"campaign {name} is open\n"


@pytest.mark.parametrize("name", ["x", "x" * 400, "kit\x1b[31mchen", "kit\nchen", "  ", "\u202eabc"])
def test_what_is_no_campaigns_name_is_refused_and_shown_without_its_effect(name: str) -> None:
    with pytest.raises(EditLoopError) as caught:
        validate_settings(Named, {"name": name}, "campaign", "Correct it.")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert str(EditLoopError(f"campaign {name}")).replace("\n", "").isprintable()


class Named(BaseModel):
    """What has a campaign's name."""

    name: Annotated[str, AfterValidator(campaign_name)]
