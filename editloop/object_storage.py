"""Objects in S3-compatible object storage: the only module that talks to it. `editloop.object_folders` is on top of it.

boto3 reads AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
AWS_CA_BUNDLE and AWS_MAX_ATTEMPTS (tries per request; where it is set, nothing waits longer for an absent storage).
A store that refuses the checksums of newer clients needs AWS_REQUEST_CHECKSUM_CALCULATION=when_required.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from editloop.errors import EditLoopError
from editloop.retry import retry_call

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef
    from s3transfer.manager import TransferManager

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SCHEME = "s3://"
PARALLEL_TRANSFERS = 16
"""Files, or parts of large files, that are under way at a time."""
CONNECT_SECONDS, READ_SECONDS = 10, 60
"""Time after which a silent connection is given up; botocore then tries again."""
AWAY_SECONDS = 90
"""Time for which a request is repeated while the storage is away: a server that was killed is back after some seconds,
and what a step computed for a day is not lost for that."""
READS = 3
"""Times that an object is read whose body is cut off, or is not what the manifest says."""
UPLOADS = 3
"""Times that an object is sent whose content changes on the way."""
DELETED_AT_ONCE = 1000
"""Most objects that S3 deletes by one request."""
DAMAGED_UPLOAD = ("BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch")
"""Error codes of a store that got another content than was sent."""
CHECK = "Check the address, AWS_ENDPOINT_URL and the AWS credentials."


class StorageError(EditLoopError):
    """Object storage cannot be reached, refuses a request, or returned another content than was stored."""


def is_address(location: str) -> bool:
    """Return whether a location is in object storage rather than a path.

    Args:
        location: s3://BUCKET/PREFIX, or a path.
    """
    return location.startswith(SCHEME)


class ObjectFolder:
    """The objects below an address, by their names relative to it.

    Every method raises StorageError, in one line, where the storage cannot be reached for AWAY_SECONDS, or refuses.
    """

    def __init__(self, address: str):
        """Take an address; nothing is read.

        Args:
            address: s3://BUCKET/PREFIX.

        Raises:
            EditLoopError: The address is of another form.
        """
        path = address.removeprefix(SCHEME).rstrip("/")
        self.address = f"{SCHEME}{path}"
        self.bucket, _, self._prefix = path.partition("/")
        if not is_address(address) or not self.bucket:
            raise EditLoopError(f"{address}: no address in object storage. Write it as s3://BUCKET/PREFIX.")

    @cached_property
    def _client(self) -> "S3Client":
        """A client of this folder's own: credentials that change count for the next one."""
        from boto3.session import Session
        from botocore.config import Config
        from botocore.session import get_session

        settings = Config(
            retries={"mode": "standard"},
            response_checksum_validation="when_required",  # the sha256s of a manifest say more
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=PARALLEL_TRANSFERS,
            tcp_keepalive=True,
        )
        session = get_session()
        session.register_component("data_loader", _service_descriptions())
        client = Session(botocore_session=session).client("s3", config=settings)
        # the stubs know handlers without an answer only
        client.meta.events.register("needs-retry.s3", _send_again)  # type: ignore[arg-type]
        return client

    def names(self) -> set[str]:
        """Return the names of all objects."""
        return set(self.marks())

    def marks(self) -> dict[str, str]:
        """Return a mark of each object by its name: its size, a hyphen and its ETag, which tells contents apart."""

        def marks() -> dict[str, str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(""))
            entries = (entry for page in pages for entry in page.get("Contents", []))
            return {entry["Key"]: f"{entry['Size']}-{entry['ETag']}" for entry in entries}

        found = self._patiently("cannot be read", marks)
        # SeaweedFS lists empty folders as objects whose names end in a slash
        return {name.removeprefix(self._key("")): mark for name, mark in found.items() if not name.endswith("/")}

    def read(self, name: str) -> bytes | None:
        """Return the content of a small object; None where there is none.

        Args:
            name: The object.
        """
        from botocore.exceptions import ClientError, HTTPClientError

        def read() -> bytes:
            return self._client.get_object(Bucket=self.bucket, Key=self._key(name))["Body"].read()

        def is_cut_off(error: BaseException) -> bool:  # while the body is read, which botocore does not repeat
            # "404" stands for an answer whose body was to say what is missing
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
            return isinstance(error, HTTPClientError) or code == "404"

        def read_whole() -> bytes | None:
            try:
                return retry_call(read, is_cut_off, tries=READS)
            except self._client.exceptions.NoSuchKey:
                return None

        return self._patiently("cannot be read", read_whole)

    def write(self, name: str, data: bytes, *, only_new: bool = False) -> bool:
        """Write a small object.

        Args:
            name: The object.
            data: Its content.
            only_new: Leave an object that exists as it is, also where two writers meet.

        Returns:
            Whether it was written.
        """
        from botocore.exceptions import ClientError

        key = self._key(name)

        def write() -> bool:
            if not only_new:
                self._client.put_object(Bucket=self.bucket, Key=key, Body=data)
                return True
            try:
                self._client.put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
                    raise
                return False

        return self._patiently("cannot be written", write)

    def upload(self, files: Mapping[str, Path]) -> None:
        """Upload files, several at a time, large ones in parts.

        Args:
            files: Files by the objects' names.
        """

        def send() -> None:
            with self._transfers() as manager:
                futures = [manager.upload(str(path), self.bucket, self._key(name)) for name, path in files.items()]
                for future in futures:
                    future.result()

        self._patiently("cannot be written", send)

    def download(self, names: Iterable[str], target: Path) -> None:
        """Download objects to files of the same names below a folder, several at a time, large ones in parts.

        Args:
            names: The objects.
            target: The folder. Missing ones are created.
        """
        paths = {name: target / _inside(self.address, name) for name in names}

        def fetch() -> None:
            with self._transfers() as manager:
                futures = []
                for name, path in paths.items():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    futures.append(manager.download(self.bucket, self._key(name), str(path)))
                for future in futures:
                    future.result()

        self._patiently("cannot be read", fetch)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects. One that is not there counts as deleted.

        Args:
            names: The objects.
        """
        keys = [self._key(name) for name in names]

        def remove() -> None:
            for start in range(0, len(keys), DELETED_AT_ONCE):
                batch: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys[start : start + DELETED_AT_ONCE]]
                reply = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
                if faults := reply.get("Errors"):
                    raise OSError(f"{faults[0].get('Key')}: {faults[0].get('Message')}")

        self._patiently("cannot be written", remove)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    @contextmanager
    def _transfers(self) -> Iterator["TransferManager"]:
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        with create_transfer_manager(self._client, TransferConfig(max_concurrency=PARALLEL_TRANSFERS)) as manager:
            yield manager

    def _patiently(self, fault: str, request: Callable[[], Result]) -> Result:
        """Return what a request gives, repeated while the storage is away; StorageError says the `fault`."""
        announcement = f"{self.address}: object storage is away; this waits for it, {AWAY_SECONDS} s at most"
        seconds = 0 if "AWS_MAX_ATTEMPTS" in os.environ else AWAY_SECONDS
        with self._errors(fault):
            return retry_call(
                request,
                _is_away,
                seconds=seconds,
                announcement=announcement,
                recovery=f"{self.address}: object storage is back",
            )

    @contextmanager
    def _errors(self, fault: str) -> Iterator[None]:
        """Make one line of whatever botocore, s3transfer and the disk raise."""
        from botocore.exceptions import BotoCoreError, ClientError
        from s3transfer.exceptions import RetriesExceededError

        try:
            yield
        except RetriesExceededError as error:
            raise StorageError(f"{self.address}: {fault} ({_one_line(error.last_exception)}). {CHECK}") from error
        except (BotoCoreError, ClientError, OSError, ValueError) as error:  # the last of an address of no form
            raise StorageError(f"{self.address}: {fault} ({_one_line(error)}). {CHECK}") from error


def _one_line(error: BaseException) -> str:
    """Return an error's text without the ends of lines that botocore writes."""
    return " ".join(str(error).split())


def _is_away(error: BaseException) -> bool:
    """Whether a storage may answer later: it cannot be reached, breaks off, or has a fault of its own."""
    from botocore.exceptions import ClientError, HTTPClientError, ProxyConnectionError, SSLError
    from s3transfer.exceptions import RetriesExceededError

    if isinstance(error, ClientError):
        return int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0)) >= 500
    away = isinstance(error, HTTPClientError | RetriesExceededError)
    return away and not isinstance(error, ProxyConnectionError | SSLError)


@cache
def _service_descriptions() -> "Loader":
    """botocore's descriptions of services, read once: reading them takes ten times what the rest of a client does."""
    from botocore.loaders import create_loader

    return create_loader()


def _send_again(response: "tuple[object, Mapping[str, object]] | None", attempts: int, **context: object) -> int | None:
    """Return the seconds after which botocore repeats a request; None leaves it to its own rules.

    Those give up where a store got another content than was sent.
    """
    error = response[1].get("Error") if response else None
    is_damaged = isinstance(error, dict) and error.get("Code") in DAMAGED_UPLOAD
    return 0 if is_damaged and attempts < UPLOADS else None


def _inside(address: str, name: str) -> PurePosixPath:
    """Return an object's name as a relative path that does not leave its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise EditLoopError(f"{address}/{name}: leads out of its folder. Write it by `editloop` alone.")
    return path
