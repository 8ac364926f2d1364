"""Django middleware that adds a script to Label Studio's pages, and lets browsers keep campaigns' pictures.

Label Studio's community edition runs no script of a labelling config (its React tag is a placeholder, and it strips
scripts from HTML), so the script comes beside the config. It is a file of the same server: nobody else is asked.
"""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Protocol

from django.conf import settings
from django.http import HttpResponse

SCRIPT_FILE = "EDITLOOP_LABELLING_SCRIPT"
"""Variable that names the script's file."""
SCRIPT_PATH = "/editloop/labelling.js"
"""Where Label Studio serves it."""
APP = b'id="app-settings"'
"""Only the pages of Label Studio's application have this, not its log-in."""
PICTURE = re.compile(r"/[0-9a-f]{64}\.(png|\d+x\d+\.webp)$")
"""How the name of a campaign's picture ends: its content is its name, so it never changes."""
YEAR = "private, max-age=31536000, immutable"


class Request(Protocol):
    """What is used of Django's HttpRequest."""

    path_info: str
    GET: Mapping[str, str]


class Response(Protocol):
    """What is used of Django's HttpResponse."""

    status_code: int
    streaming: bool
    headers: MutableMapping[str, str]
    content: bytes


def labelling_script(get_response: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Return the middleware. Django calls this once, at the start of the server.

    Args:
        get_response: The server without this middleware.

    Raises:
        OSError: The script's file cannot be read.
    """
    script = Path(os.environ[SCRIPT_FILE]).read_bytes()
    address = f"{SCRIPT_PATH}?v={hashlib.sha256(script).hexdigest()[:16]}"
    tag = f'<script src="{settings.HOSTNAME}{address}" defer></script>'.encode()

    def respond(request: Request) -> Response:
        if request.path_info == SCRIPT_PATH:
            reply: Response = HttpResponse(script, content_type="text/javascript", headers={"Cache-Control": YEAR})
            return reply
        response = get_response(request)
        if response.status_code == 200 and PICTURE.search(_file_of(request)):
            response.headers["Cache-Control"] = YEAR
            response.headers.pop("Vary", None)  # a session's cookie changes with each reply
        is_html = response.headers.get("Content-Type", "").startswith("text/html")
        if is_html and not response.streaming and APP in response.content and tag not in response.content:
            response.content = response.content.replace(b"</head>", tag + b"</head>", 1)
            if "Content-Length" in response.headers:
                response.headers["Content-Length"] = str(len(response.content))
        return response

    return respond


def _file_of(request: Request) -> str:
    """Return the name of the storage's file that a request asks for; "" for other requests."""
    if request.path_info.startswith("/data/local-files/"):
        return request.GET.get("d", "")
    if not request.path_info.endswith("/resolve/"):
        return ""
    try:
        return base64.urlsafe_b64decode(request.GET.get("fileuri", "")).decode()
    except ValueError:  # no base64, or no text
        return ""
