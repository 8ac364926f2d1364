"""What a server on a real socket takes and refuses: tokens, attacks, odd pictures, edits that cannot be judged."""

import base64
import io
import json
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from editloop.data.picture_file import LARGEST_PICTURE, png_bytes
from editloop.data.png_encoding import encode_png
from editloop.models.judge_protocol import EditGroup
from tests.pixel_judge import INFINITE, UNJUDGEABLE
from tests.served_judge import ADDRESS, TOKEN, Server, body, pictures, post, served


def test_whoever_has_no_token_learns_nothing(server: Server) -> None:
    for shown in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer ü"}):
        headers = {name: value.encode() for name, value in shown.items()}
        for method, path in (("POST", "/v1/score"), ("GET", "/v1/model"), ("GET", "/metrics")):
            answer = httpx.request(method, server.url + path, headers=headers)
            assert answer.status_code == 401
            assert "pixel" not in answer.text
    for path in ("/healthz", "/readyz"):
        assert httpx.get(server.url + path).status_code == 200


def picture_file(form: str, array: np.ndarray | None = None, **options: Any) -> str:
    buffer = io.BytesIO()
    picture = Image.fromarray(pictures(1, side=64)[0] if array is None else array)
    picture.convert(options.pop("mode", picture.mode)).save(buffer, form, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def bomb() -> str:
    """A PNG of a kilobyte that says it has 900 million pixels."""
    data = bytearray(base64.b64decode(picture_file("PNG")))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return base64.b64encode(bytes(data)).decode()


def truncated() -> str:
    return base64.b64encode(base64.b64decode(picture_file("PNG"))[:500]).decode()


ATTACKS: dict[str, tuple[Any, int, str]] = {
    "no JSON": (None, 422, "body"),
    "another key": (body() | {"model": "x"}, 422, "model"),
    "no edits": (body(edits=[]), 422, "edits"),
    "too many edits": (body(edits=body()["edits"] * 65), 413, "at most 64"),
    "no base64": (body(source="/etc/passwd"), 422, "base64"),
    "not a picture": (body(source=base64.b64encode(b"hello").decode()), 422, "source"),
    "another format": (body(source=picture_file("GIF")), 422, "PNG, JPEG, WebP or AVIF"),
    "truncated": (body(edits=[truncated()]), 422, "edits[0]"),
    "bomb": (body(edits=[bomb()]), 422, "pixels"),
    "1 x 1": (body(edits=[picture_file("PNG", pictures(1, side=1)[0])]), 422, "1 x 1"),
    "10,001 characters": (body("x" * 10_001), 422, "10,000"),
    "half a character": (json.dumps(body("\ud800")), 422, "hex escape"),
    "a body over the limit": (body("x" * 2_000_000), 413, "bytes"),
    "a number as instruction": (body(7), 422, "instruction"),
    "a pickle": (b"\x80\x04cos\nsystem\n", 422, "body"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_with_the_rule(server: Server, attack: str) -> None:
    content, status, words = ATTACKS[attack]
    raw = content if isinstance(content, bytes) else json.dumps(content) if not isinstance(content, str) else content
    answer = httpx.post(
        f"{server.url}/v1/score", content=raw, headers={**ADDRESS, "Content-Type": "application/json"}, timeout=60
    )
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert len(answer.text) < 2000, "what was sent is not sent back"


def test_what_a_browser_sends_by_itself_is_refused(server: Server) -> None:
    assert post(server, body(), {"Content-Type": "text/plain"}).status_code == 415


def test_a_body_without_a_length_is_cut_off_too(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 100_000

    try:
        answer = httpx.post(
            f"{server.url}/v1/score", content=endless(), headers={**ADDRESS, "Content-Type": "application/json"}
        )
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # the server has closed the connection before all of it was sent
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_whoever_sends_slowly_is_cut_off_and_holds_up_nobody(tmp_path: Path) -> None:
    """Half-sent headers, on a new connection and after an answer, and a large body that stops: others are answered."""
    with served(tmp_path, receive_seconds=1.5, held_megabytes=64) as running:
        address = ("127.0.0.1", httpx.URL(running.url).port)
        whole = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        head = f"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
        body_head = head + b"Content-Type: application/json\r\nContent-Length: 60000000\r\n\r\n{"
        slow = [socket.create_connection(address) for _ in range(20)]
        for number, connection in enumerate(slow):
            connection.settimeout(20)
            if number % 3 == 1:
                connection.sendall(whole)
                assert b"200 OK" in connection.recv(4096)
            connection.sendall(body_head if number % 3 == 2 else head[:50])
        assert post(running, body()).status_code == 200, "announced bytes are not reserved"
        for number, connection in enumerate(slow):
            answer = b"".join(iter(partial(connection.recv, 4096), b""))
            assert (b"408 " in answer) == (b"within 1.5 seconds" in answer) == (number % 3 == 2), answer
            connection.close()
        assert post(running, body()).status_code == 200


def test_two_clients_with_the_largest_pictures_hold_up_no_third(tmp_path: Path) -> None:
    """Two hostile addresses each keep eight requests under way; a third is answered meanwhile.

    Theirs are of the largest picture that is read, and of a broken one behind it: the judge is never asked.
    """
    side = int(LARGEST_PICTURE**0.5)
    source = base64.b64encode(png_bytes(Image.new("RGB", (side, side), "red"), compress_level=1)).decode()
    large = json.dumps(body(source=source, edits=[truncated()])).encode()
    over = threading.Event()
    statuses: Counter[int] = Counter()

    def attack(url: str, address: str) -> None:
        with from_address(address) as client:
            while not over.is_set():
                try:
                    statuses[post_bytes(client, url, large).status_code] += 1
                except httpx.TransportError:  # the server's end
                    return

    with ThreadPoolExecutor(16) as pool, served(tmp_path, stop_seconds=0) as running:
        for address in ["127.0.0.2", "127.0.0.3"] * 8:
            pool.submit(attack, running.url, address)
        try:
            time.sleep(3)
            waits: list[float] = []
            with from_address("127.0.0.4") as client:
                while len(waits) < 50 or not statuses:
                    began = time.monotonic()
                    assert post_bytes(client, running.url, json.dumps(body()).encode()).status_code == 200
                    waits.append(time.monotonic() - began)
        finally:
            over.set()
    print(f"third client: median {np.median(waits):.2f} s, longest {max(waits):.2f} s; the hostile ones: {statuses}")
    assert statuses[422], "their pictures were decoded, one after the other"
    assert np.median(waits) < 3
    assert max(waits) < 30


def test_a_picture_that_takes_too_long_is_refused_and_a_process_of_its_own_is_replaced(tmp_path: Path) -> None:
    side = int(LARGEST_PICTURE**0.5)
    slow = base64.b64encode(png_bytes(Image.new("RGB", (side, side), "red"), compress_level=1)).decode()
    with served(tmp_path, decode_seconds=0.3, decoders=1) as running:
        assert post(running, body()).status_code == 200
        (before,) = running.decoders()
        answer = post(running, body(edits=[slow]))
        assert answer.status_code == 413
        assert "edits[0]: the request was not decoded within 0.3 s" in answer.json()["error"]
        assert post(running, body()).status_code == 200
        assert [process.pid for process in running.decoders()] != [before.pid]
        assert running.metric("editloop_undecoded_requests_total") == 1


def test_an_address_has_its_share_of_connections_and_others_have_theirs(tmp_path: Path) -> None:
    with served(tmp_path, connections=8) as running:
        server = ("127.0.0.1", httpx.URL(running.url).port)
        kept = [socket.create_connection(server, source_address=("127.0.0.2", 0)) for _ in range(4)]
        with socket.create_connection(server, source_address=("127.0.0.2", 0)) as surplus:
            answer = b"".join(iter(partial(surplus.recv, 4096), b""))
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"Retry-After: 1" in answer
        assert b"share of the open connections" in answer
        assert post(running, body()).status_code == 200
        for connection in kept:
            connection.close()
        deadline = time.monotonic() + 10
        with from_address("127.0.0.2") as client:
            while (answered := post_bytes(client, running.url, json.dumps(body()).encode())).status_code == 429:
                assert time.monotonic() < deadline
        assert answered.status_code == 200


def from_address(address: str) -> httpx.Client:
    """A client with an address of its own among the loopback's."""
    return httpx.Client(transport=httpx.HTTPTransport(local_address=address), headers=ADDRESS, timeout=120)


def post_bytes(client: httpx.Client, url: str, content: bytes) -> httpx.Response:
    return client.post(f"{url}/v1/score", content=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {"mode": "RGBA"}),
        ("JPEG", {"mode": "CMYK"}),
        ("PNG", {"mode": "L"}),
        ("PNG", {"array": np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16}),
        ("WEBP", {"lossless": True}),
        ("PNG", {"array": pictures(1, side=320)[0][:32]}),
    ],
)
def test_odd_pictures_are_scored(server: Server, form: str, options: dict[str, Any]) -> None:
    odd = picture_file(form, **options)
    scores = post(server, body("改为蓝色 <|Reward|> <|image_pad|> \u202e", source=odd, edits=[odd])).json()["scores"]
    assert scores[0]["missing"] == ""


def test_a_score_that_is_no_number_is_missing(server: Server) -> None:
    scores = server.judge().judge([EditGroup("x", pictures(1)[0], [INFINITE, pictures(1)[0]])])[0]
    assert "finite" in scores[0].missing
    assert scores[0].overall is None
    assert scores[1].overall is not None


def test_a_group_that_cannot_be_judged_is_refused_alone(server: Server) -> None:
    source = pictures(1)[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(
                lambda edit: post(server, body(edits=[base64.b64encode(encode_png(edit)).decode()])),
                [source, UNJUDGEABLE, source, source],
            )
        )
    assert [answer.status_code for answer in found] == [200, 422, 200, 200]
    assert "value 77" in found[1].json()["error"]
