"""A real S3 server on this machine (SeaweedFS), for the tests that need one."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

WEED = Path(sys.prefix) / "bin" / "weed"
READY_SECONDS = 60
"""SeaweedFS takes 4 s on an idle machine."""
BUCKET = "editloop"
SOCKETS, GRPC_ABOVE = Path("/tmp"), 10_000
"""Where SeaweedFS puts its sockets, and how much higher than a port that of its gRPC is."""


class S3Server:
    """A server that can be killed and started again on the same ports, with the files of one folder."""

    def __init__(self, folder: Path):
        """Prepare it; `start` starts it.

        Args:
            folder: Where its files lie; created where it is missing.
        """
        identity = {
            "name": "editloop",
            "credentials": [{"accessKey": "pictures-key", "secretKey": "pictures-secret"}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        folder.mkdir(exist_ok=True)
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        ports = dict(zip(("master", "volume", "filer", "s3"), _free_ports(4), strict=True))
        self.folder = folder
        self._ports = [port + above for port in ports.values() for above in (0, GRPC_ABOVE)]
        self._command = [str(WEED), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
        self._command += ["-volume.max=200", "-master.volumeSizeLimitMB=256", f"-s3.config={folder / 's3.json'}"]
        self._command += [f"-{name}.port={port}" for name, port in ports.items()]
        # Else the only master waits for an election among the peers that it remembers, some 20 s after a kill.
        self._command += ["-master.resumeState=false"]
        # Two servers at once would meet at the fixed ports of these catalogues; and nothing is reported to anybody.
        self._command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}",
            "AWS_ACCESS_KEY_ID": "pictures-key",
            "AWS_SECRET_ACCESS_KEY": "pictures-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        """By which the server is found."""

    def start(self) -> None:
        """Start it, and return when it has the bucket BUCKET."""
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)
        try:
            _make_bucket(self.environment, self.process, self.folder / "log")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill it, as a machine does that loses power: an orderly end takes 20 s."""
        self.process.kill()
        self.process.wait()
        for port in self._ports:
            for left in SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """The environment by which a running server with the bucket BUCKET is found; its files lie in `folder`."""
    server = S3Server(folder)
    server.start()
    try:
        yield server.environment
    finally:
        server.kill()


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and so are those GRPC_ABOVE them, which SeaweedFS takes for gRPC."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1] - GRPC_ABOVE
            try:
                high.bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            if port > 1024 and port not in found:
                found.append(port)
    return found


def _make_bucket(environment: dict[str, str], server: subprocess.Popen[bytes], log: Path) -> None:
    client = boto3.client(
        "s3",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            return
        except (client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            return  # it was started before
        except (BotoCoreError, ClientError):  # the former where it does not listen yet
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text()[-2000:]) from None
            time.sleep(0.3)
