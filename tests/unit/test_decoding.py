"""The processes that decode a server's requests: deadline, memory, clients that leave, shares."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from editloop.data.picture_file import LARGEST_PICTURE, png_bytes
from editloop.scoring.server_settings import Limits, ServeSettings
from editloop.scoring.serving.decoder_pool import Decoder, DecoderKilledError, DecoderPool
from editloop.scoring.serving.meters import Meters
from editloop.scoring.serving.refusal import HttpRefusal, UnavailableError
from tests.served_judge import body as request_body

GONE = threading.Event()
STAYS = threading.Event()
GONE.set()


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(Limits(), 60.0)
    yield decoder
    decoder.stop()


@cache
def largest_picture(colour: str = "red") -> str:
    """The largest picture that is read, as base64: 50 million pixels in a file of 150 kB."""
    side = int(LARGEST_PICTURE**0.5)
    return base64.b64encode(png_bytes(Image.new("RGB", (side, side), colour), compress_level=1)).decode()


def body(**changes: Any) -> bytes:
    return json.dumps(request_body(**changes)).encode()


def test_a_request_comes_back_as_it_was_sent_and_equal_files_are_one_array(decoder: Decoder) -> None:
    good = request_body()["source"]
    decoded = decoder.decode(body(instruction="make it red", edits=[good, good]), STAYS)
    assert decoded.instruction == "make it red"
    assert decoded.source is decoded.edits[0] is decoded.edits[1]
    assert decoded.bytes == decoded.source.nbytes == 16 * 16 * 3
    again = decoder.decode(body(instruction="make it blue"), STAYS)
    np.testing.assert_array_equal(again.source, decoded.source)
    assert again.task != decoded.task


def test_a_request_that_takes_too_long_is_refused_and_its_process_is_free(decoder: Decoder) -> None:
    decoder.decode(body(), STAYS)
    decoder.seconds = 0.2
    began = time.monotonic()
    with pytest.raises(HttpRefusal) as caught:
        decoder.decode(body(edits=[largest_picture()]), STAYS)
    assert time.monotonic() - began < 5
    assert caught.value.status_code == 413
    assert "edits[0]" in caught.value.detail
    assert "within 0.2 s" in caught.value.detail
    decoder.seconds = 60.0
    decoder.decode(body(), STAYS)


def test_what_would_take_the_machines_memory_is_refused() -> None:
    """A million unknown keys, each of which pydantic describes by itself."""
    decoder = Decoder(Limits(body_megabytes=16), 60.0, memory=2**26)
    try:
        with pytest.raises(HttpRefusal) as caught:
            decoder.decode(b"{" + b",".join(b'"%d":1' % key for key in range(1_000_000)) + b"}", STAYS)
        assert caught.value.status_code in (413, 422)  # Python says so, Rust's allocator aborts
        assert "memory" in caught.value.detail
        decoder.decode(body(), STAYS)
    finally:
        decoder.stop()


def test_of_a_million_faulty_pictures_the_first_is_named(decoder: Decoder) -> None:
    began = time.monotonic()
    with pytest.raises(HttpRefusal, match=r"edits.0: .*a picture is base64 text"):
        decoder.decode(b'{"instruction": "x", "source": "", "edits": [' + b"1," * 1_000_000 + b"1]}", STAYS)
    assert time.monotonic() - began < 10


def test_a_process_that_dies_costs_its_own_request_only(decoder: Decoder) -> None:
    decoder.decode(body(), STAYS)
    children = psutil.Process().children()
    (process,) = (child for child in children if "editloop.scoring.serving.decoding" in child.cmdline())
    threading.Timer(0.3, process.kill).start()
    with pytest.raises(DecoderKilledError, match=r"edits\[0\]: .* was killed \(SIGKILL\)"):
        decoder.decode(body(edits=[largest_picture()]), STAYS)
    decoder.decode(body(), STAYS)


@pytest.mark.parametrize(("kills", "answered"), [(1, True), (2, False)])
def test_a_request_whose_process_is_killed_is_decoded_in_a_new_one(kills: int, answered: bool) -> None:
    """Once: the next death has most likely to do with the request, and 503 tells the client to come back later."""

    def kill_decoders(number: int) -> None:
        dead: set[int] = set()
        while len(dead) < number:
            for child in psutil.Process().children():
                with suppress(psutil.Error):  # one has ended, and nobody has asked how
                    if child.pid not in dead and "editloop.scoring.serving.decoding" in child.cmdline():
                        time.sleep(0.2)  # starting, or at a picture
                        child.kill()
                        dead.add(child.pid)

    large = body(edits=[largest_picture("red"), largest_picture("blue")])

    async def whole() -> bool:
        pool = DecoderPool(ServeSettings(decoders=1), Meters())
        try:
            assert (await pool.decode("a", body(), STAYS)).edits
            slow = asyncio.create_task(pool.decode("a", large, STAYS))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(kill_decoders, kills)
            try:
                return bool((await slow).edits)
            except UnavailableError:
                return False
        finally:
            pool.stop()

    assert asyncio.run(whole()) == answered


def test_pictures_of_a_client_that_has_left_are_not_decoded(decoder: Decoder) -> None:
    decoder.decode(body(), STAYS)
    began = time.monotonic()
    with pytest.raises(HttpRefusal, match="499"):
        decoder.decode(body(source=largest_picture()), GONE)
    assert time.monotonic() - began < 0.5
    assert decoder.decode(body(), STAYS).edits


def test_two_clients_with_the_largest_pictures_hold_up_no_third() -> None:
    """Each hostile client has eight requests at once, again and again; the third sends one after the other."""

    async def ask(pool: DecoderPool, client: str, content: bytes) -> float:
        began = time.monotonic()
        await pool.decode(client, content, STAYS)
        return time.monotonic() - began

    async def whole() -> list[float]:
        pool = DecoderPool(ServeSettings(), Meters())
        try:
            large, small = body(edits=[largest_picture()]), body()
            await ask(pool, "c", small)
            hostile = [asyncio.create_task(ask(pool, client, large)) for client in "ab" for _ in range(8)]
            await asyncio.sleep(1.0)
            normal = [await ask(pool, "c", small) for _ in range(10)]
            assert not all(task.done() for task in hostile), "they were at it all the time"
            for task in hostile:
                task.cancel()
            await asyncio.gather(*hostile, return_exceptions=True)
            return normal
        finally:
            pool.stop()

    waits = asyncio.run(whole())
    assert max(waits) < 5, waits
    assert np.median(waits) < 1, waits


def test_a_client_that_leaves_while_it_waits_takes_no_decoder_with_it() -> None:
    async def whole() -> None:
        pool = DecoderPool(ServeSettings(decoders=1), Meters())
        try:
            slow = asyncio.create_task(pool.decode("a", body(edits=[largest_picture()]), STAYS))
            await asyncio.sleep(0.05)
            waiting = [asyncio.create_task(pool.decode("b", body(), STAYS)) for _ in range(3)]
            await asyncio.sleep(0.05)
            for task in (slow, *waiting[:2]):
                task.cancel()
            assert (await waiting[2]).edits
            assert (await pool.decode("c", body(), STAYS)).edits
        finally:
            pool.stop()

    asyncio.run(whole())
