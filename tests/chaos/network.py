"""Proxies between a turn of the loop and what it talks to: Label Studio, MLflow, and a bucket of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from editloop.content import write_file
from tests.chaos.call import COMMAND, marked
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.s3_server import BUCKET, S3Server

LABEL_STUDIO, MLFLOW, S3 = "label-studio", "mlflow", "s3"


class Network:
    """What stands between a turn and the services."""

    def __init__(self, home: Path, proxies: Mapping[str, FaultProxy], bucket: S3Server | None):
        """Keep the parts.

        Args:
            home: Folder of the turn's services.
            proxies: Proxies by service.
            bucket: The bucket's server; None where the turn keeps everything in folders.
        """
        self.home, self.proxies, self.bucket = home, proxies, bucket
        self.beside = list[tuple[subprocess.Popen[bytes], Path]]()
        """Commands that run beside the turn's calls, each with the log of what it prints."""

    def join(self, name: str, environment: Mapping[str, str]) -> None:
        """Put the proxy of a service of this machine before it, for the calls that begin from now on.

        The services are started where they do not run, as a user does. The address in `credentials.json` becomes the
        proxy's.

        Args:
            name: LABEL_STUDIO or MLFLOW.
            environment: All variables of the turn's calls.
        """
        proxy, path = self.proxies[name], self.home / "credentials.json"
        command = [sys.executable, "-c", COMMAND, "up", "--services", str(self.home.parent)]
        subprocess.run(command, env=marked(environment, self.home.parent), capture_output=True, check=True)
        credentials = json.loads(path.read_text())
        if credentials[name]["port"] != proxy.server.server_port:
            proxy.service = f"127.0.0.1:{credentials[name]['port']}"
            credentials[name]["port"] = proxy.server.server_port
            write_file(path, json.dumps(credentials, indent=2) + "\n")

    def part(self, name: str) -> None:
        """Write the address of a service itself into `credentials.json`: when it is started anew, it has that one.

        Args:
            name: LABEL_STUDIO or MLFLOW.
        """
        proxy, path = self.proxies[name], self.home / "credentials.json"
        credentials = json.loads(path.read_text())
        if credentials[name]["port"] == proxy.server.server_port:
            credentials[name]["port"] = int(proxy.service.rpartition(":")[2])
            write_file(path, json.dumps(credentials, indent=2) + "\n")


@contextmanager
def network(folder: Path, *, with_bucket: bool) -> Iterator[tuple[Network, dict[str, str]]]:
    """Yield the network of a turn, and the variables by which its calls find the bucket.

    Args:
        folder: Folder of the turn.
        with_bucket: Whether pictures, datasets, checkpoints and what steps hand on are kept in a bucket.
    """
    with ExitStack() as stack:
        bucket, variables, addresses = None, dict[str, str](), {LABEL_STUDIO: "", MLFLOW: ""}
        if with_bucket:
            bucket = S3Server(folder / "bucket")
            bucket.start()
            stack.callback(bucket.kill)
            addresses[S3] = bucket.environment["AWS_ENDPOINT_URL"]
        proxies = {name: stack.enter_context(fault_proxy(address)) for name, address in addresses.items()}
        if bucket:
            variables = {
                **bucket.environment,
                "AWS_ENDPOINT_URL": proxies[S3].url,
                **{
                    f"EDITLOOP_{name}": f"s3://{BUCKET}/{name.lower()}"
                    for name in ("OBJECTS", "PICTURES", "CHECKPOINTS", "DATASET_REMOTE")
                },
            }
        yield Network(folder / "demo" / "services", proxies, bucket), variables
