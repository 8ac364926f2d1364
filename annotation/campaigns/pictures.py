"""Stores of a campaign's images for Label Studio: a folder that it serves, or an S3 bucket.

Both hold `<campaign key>/<sha256>.png`, and of a picture that is larger than a screen needs also a display copy, a much
smaller `<sha256>.<width>x<height>.webp`: pages show the copy, and the picture itself where its pixels are looked at.
Label Studio serves an image only to people who are logged in: from a folder through its local-files storage, from a
bucket through its S3 storage without presigned links. No link is public, and an address reveals only the campaign's key
and the image's digest.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image, UnidentifiedImageError

from annotation.campaigns.labelling import ShownPicture
from editloop.data.picture_file import file_picture_sha256
from editloop.errors import EditLoopError
from editloop.object_storage import SCHEME, ObjectFolder, StorageError, is_address
from infra.settings import ServiceSettings

DISPLAY_SIDE = 1024
"""Pixels of a display copy's longer side. A picture that is no larger has no copy."""
DISPLAY_QUALITY = 90
"""WebP quality of display copies: about 150 KB, where the PNG of 2048 pixels is some MB."""
THREADS = 4
"""Threads that make display copies; Pillow decodes and encodes without Python's lock."""
COPY = re.compile(r"([0-9a-f]{64})\.(\d+)x(\d+)\.webp")
"""Name of a display copy: the picture's sha256, width and height."""
NO_TASKS = "^$"
"""Pattern that matches no file name. Otherwise the "Sync" button of a storage would create a task for each image."""
PRIVATE = "reserved network address"
"""Part of Label Studio's error for an endpoint in a private network that is not its own S3_ENDPOINT."""


class PictureStore(Protocol):
    """Store of campaigns' images that Label Studio can read."""

    def put(self, campaign: str, pictures: Mapping[str, Path]) -> None:
        """Copy images into the campaign's folder of the store; existing ones stay as they are.

        Args:
            campaign: Key of the campaign.
            pictures: Image files by sha256.

        Raises:
            EditLoopError: A file's content does not match its sha256, or the store cannot be written.
        """

    def address(self, campaign: str, name: str) -> str:
        """Return the address of a file of the campaign for a task's data.

        Args:
            campaign: Key of the campaign.
            name: Name of the file, see `file_name`.
        """

    def shown(self, campaign: str) -> Callable[[str], ShownPicture]:
        """Return the function that tells how the campaign's pages show an image, from its sha256.

        Args:
            campaign: Key of the campaign.
        """

    def attach(self, client: Any, project: int, campaign: str) -> None:
        """Let the members of a Label Studio project see the campaign's images.

        It does nothing if the store is attached already.

        Args:
            client: A LabelStudio client of the account that owns the campaigns.
            project: Label Studio's project id.
            campaign: Key of the campaign.

        Raises:
            EditLoopError: Label Studio cannot reach the images.
        """


def file_name(sha256: str) -> str:
    """Return the name of an image's file in a store.

    Args:
        sha256: sha256 of the image.
    """
    return f"{sha256}.png"


def picture_store(settings: ServiceSettings) -> PictureStore:
    """Return the store that `EDITLOOP_PICTURES` names: a folder, or s3://bucket/prefix.

    Args:
        settings: Settings with the store's location.

    Raises:
        EditLoopError: The location is not set, or it names no bucket.
    """
    location = settings.require("pictures")
    if not is_address(location):
        return FolderStore(Path(location).absolute())
    bucket, _, prefix = location.removeprefix(SCHEME).strip("/").partition("/")
    if not bucket:
        raise EditLoopError(f"EDITLOOP_PICTURES={location} names no bucket: write it as s3://bucket/prefix.")
    return BucketStore(bucket, prefix)


def campaign_pictures(settings: ServiceSettings, campaign: str) -> list[Path]:
    """Return the folders of this machine that hold a campaign's images for Label Studio; empty for a bucket.

    Args:
        settings: Settings with the store's location.
        campaign: Key of the campaign.
    """
    location = settings.pictures
    return [Path(location) / campaign] if location and not is_address(location) else []


@dataclass(frozen=True)
class FolderStore:
    """Images in a folder of this machine, which is Label Studio's LOCAL_FILES_DOCUMENT_ROOT under the same path."""

    root: Path

    def put(self, campaign: str, pictures: Mapping[str, Path]) -> None:
        folder = self.root / campaign
        folder.mkdir(parents=True, exist_ok=True)
        existing = {entry.name for entry in os.scandir(folder)}
        for digest, path in pictures.items():
            if file_name(digest) not in existing:
                _check_content(digest, path)
                _link_or_copy(path, folder / file_name(digest))
        _write_copies({folder / name: path for name, path in _copies(pictures).items() if name not in existing})

    def shown(self, campaign: str) -> Callable[[str], ShownPicture]:
        folder = self.root / campaign
        names = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
        return shown_pictures(self, campaign, names)

    def address(self, campaign: str, name: str) -> str:
        return f"/data/local-files/?d={campaign}/{name}"

    def attach(self, client: Any, project: int, campaign: str) -> None:
        path = str(self.root / campaign)
        if any(storage.path == path for storage in client.import_storage.local.list(project=project)):
            return
        try:
            client.import_storage.local.create(
                project=project, path=path, title="pictures", regex_filter=NO_TASKS, use_blob_urls=True
            )
        except Exception as error:  # the SDK lets httpx's and its own errors through
            raise EditLoopError(
                f"Label Studio cannot serve the pictures in {path}: {_error_text(error)} It must run with "
                f"LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true, LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={self.root}, "
                "and see that folder under the same path; `editloop up` starts it so."
            ) from error


@dataclass(frozen=True)
class BucketStore:
    """Images in an S3 bucket.

    Endpoint and credentials come from AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Label Studio
    stores the credentials and serves the images itself, so no link is signed.
    """

    bucket: str
    prefix: str

    def put(self, campaign: str, pictures: Mapping[str, Path]) -> None:
        folder = ObjectFolder(f"{SCHEME}{self.bucket}/{self._key(campaign)}")
        try:
            existing = folder.names()
            missing = {digest: path for digest, path in pictures.items() if file_name(digest) not in existing}
            for digest, path in missing.items():
                _check_content(digest, path)
            folder.upload({file_name(digest): path for digest, path in missing.items()})
            with tempfile.TemporaryDirectory() as scratch:
                copies = {name: path for name, path in _copies(pictures).items() if name not in existing}
                targets = {name: Path(scratch) / name for name in copies}
                _write_copies({targets[name]: path for name, path in copies.items()})
                folder.upload(targets)
        except StorageError as error:
            raise EditLoopError(f"The pictures do not go to the bucket of EDITLOOP_PICTURES: {error}") from error

    def address(self, campaign: str, name: str) -> str:
        return f"{SCHEME}{self.bucket}/{self._key(campaign)}/{name}"

    def attach(self, client: Any, project: int, campaign: str) -> None:
        prefix = self._key(campaign)
        if any(
            (storage.bucket, storage.prefix) == (self.bucket, prefix)
            for storage in client.import_storage.s3.list(project=project)
        ):
            return
        try:
            try:
                self._create(client, project, prefix, os.environ.get("AWS_ENDPOINT_URL") or None)
            except Exception as error:  # the SDK lets httpx's and its own errors through
                if PRIVATE not in str(error):
                    raise
                self._create(client, project, prefix, None)
        except Exception as error:
            raise EditLoopError(
                f"Label Studio cannot reach the pictures in {SCHEME}{self.bucket}/{prefix}: {_error_text(error)} It "
                "needs "
                "the same AWS_ENDPOINT_URL and credentials, from where it runs; it must be started with S3_ENDPOINT "
                "where that address is of a private network."
            ) from error

    def shown(self, campaign: str) -> Callable[[str], ShownPicture]:
        folder = ObjectFolder(f"{SCHEME}{self.bucket}/{self._key(campaign)}")
        try:
            return shown_pictures(self, campaign, folder.names())
        except StorageError as error:
            raise EditLoopError(f"The pictures in the bucket of EDITLOOP_PICTURES cannot be listed: {error}") from error

    def _create(self, client: Any, project: int, prefix: str, endpoint: str | None) -> None:
        client.import_storage.s3.create(
            project=project,
            title="pictures",
            bucket=self.bucket,
            prefix=prefix,
            s3endpoint=endpoint,
            region_name=os.environ.get("AWS_DEFAULT_REGION") or None,
            aws_access_key_id=os.environ.get("AWS_ACCESS_KEY_ID") or None,
            aws_secret_access_key=os.environ.get("AWS_SECRET_ACCESS_KEY") or None,
            regex_filter=NO_TASKS,
            use_blob_urls=True,
            presign=False,
        )

    def _key(self, campaign: str) -> str:
        return f"{self.prefix}/{campaign}" if self.prefix else campaign


def _check_content(digest: str, path: Path) -> None:
    """Raise EditLoopError if a file does not have the digest."""
    if (actual := file_picture_sha256(path)) != digest:
        raise EditLoopError(f"{path} is not the picture {digest} but {actual}: it was changed. Make its folder anew.")


def shown_pictures(store: PictureStore, campaign: str, names: Iterable[str]) -> Callable[[str], ShownPicture]:
    """Return the function that tells how pages show an image, from its sha256.

    Args:
        store: The store, for the addresses.
        campaign: Key of the campaign, or another folder below the store's root.
        names: Names of the files in that folder: images and display copies.
    """
    copies = {match[1]: match for match in map(COPY.fullmatch, names) if match}

    def shown(sha256: str) -> ShownPicture:
        full, copy = store.address(campaign, file_name(sha256)), copies.get(sha256)
        if copy is None:
            return ShownPicture(full)
        return ShownPicture(store.address(campaign, copy[0]), full, (int(copy[2]), int(copy[3])))

    return shown


def _copies(pictures: Mapping[str, Path]) -> dict[str, Path]:
    """Return the picture of each display copy, by the copy's name."""
    copies = {}
    for digest, path in pictures.items():
        try:
            with Image.open(path) as picture:
                width, height = picture.size
        except UnidentifiedImageError:
            continue  # the page says that it does not load
        if max(width, height) > DISPLAY_SIDE:
            copies[f"{digest}.{width}x{height}.webp"] = path
    return copies


def _write_copies(pictures: Mapping[Path, Path]) -> None:
    """Write display copies, by their paths."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(_write_copy, pictures.values(), pictures.keys()))


def _write_copy(path: Path, target: Path) -> None:
    """Write a picture's display copy; a partial copy never appears under the target's name."""
    part = target.with_suffix(f".{os.getpid()}.part")
    with Image.open(path) as picture:
        picture.thumbnail((DISPLAY_SIDE, DISPLAY_SIDE), Image.Resampling.LANCZOS)
        picture.save(part, "WEBP", quality=DISPLAY_QUALITY, method=2)
    os.replace(part, target)


def _link_or_copy(path: Path, target: Path) -> None:
    """Hard-link the file, or copy it if that fails; a partial copy never appears under the target's name."""
    try:
        os.link(path, target)
    except FileExistsError:
        return
    except OSError:
        part = target.with_suffix(f".{os.getpid()}.part")
        shutil.copyfile(path, part)
        os.replace(part, target)


def _error_text(error: Exception) -> str:
    """Return Label Studio's error message in one line."""
    body = getattr(error, "body", None)
    detail = (body.get("detail") or body.get("validation_errors") or body) if isinstance(body, dict) else error
    return f"{' '.join(str(detail).split())[:300].rstrip('.')}."
