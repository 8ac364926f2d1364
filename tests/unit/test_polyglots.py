"""Files that are a picture and something else, and pictures of formats whose decoders do more than decode."""

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from editloop.data.picture_file import read_picture, store_png
from editloop.errors import EditLoopError
from tests.pixel_judge import picture

MARK = b"planted-payload"
IMAGE = Image.fromarray(picture(5))
HTML = b"<!doctype html><script>alert('" + MARK + b"')</script>"


def encoded(form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    IMAGE.save(stream, form, **options)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as out:
        out.writestr("../planted.sh", MARK)
    return stream.getvalue()


POLYGLOTS = {
    "a PNG and a page": encoded("PNG") + HTML,
    "a PNG and an archive": encoded("PNG") + archive(),
    "a JPEG and a page": encoded("JPEG") + HTML,
    "a JPEG with a page as its comment": encoded("JPEG", comment=HTML),
    "a WebP and an archive": encoded("WEBP") + archive(),
    "a JPEG with a page in its EXIF": encoded("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + HTML),
    "a PNG with a page in its colour profile": encoded("PNG", icc_profile=HTML),
}
REFUSED = {
    "a page": HTML,
    "an archive": archive(),
    "a script and GIF": b"GIF89a=1/*" + MARK + b"*/;alert(1)",
    "a GIF": encoded("GIF"),
    "a TIFF": encoded("TIFF"),
    "a PDF": encoded("PDF"),
    "PostScript": encoded("EPS"),
    "a drawing": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "a page before a PNG": HTML + encoded("PNG"),
    "an archive before a JPEG": archive() + encoded("JPEG"),
}


@pytest.mark.parametrize("kind", POLYGLOTS)
def test_of_a_picture_only_its_pixels_come_in(kind: str, tmp_path: Path) -> None:
    """What the loop stores, shows and uploads is made from the pixels."""
    store_png(read_picture(POLYGLOTS[kind], "x"), tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1
    assert MARK not in files[0].read_bytes()
    with Image.open(files[0]) as stored:
        assert not stored.info


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_picture_of_four_formats_is_refused(kind: str) -> None:
    with pytest.raises(EditLoopError, match=r"^x: not a readable PNG, JPEG, WebP or AVIF picture"):
        read_picture(REFUSED[kind], "x")
