"""`editloop serve`: the application with its workers, from start to graceful stop."""

import ipaddress
import logging
import os
from functools import partial
from pathlib import Path

from editloop.addresses import without_secrets
from editloop.errors import EditLoopError
from editloop.logs import log_to_stderr
from editloop.models.judge_protocol import Judge
from editloop.scoring.opening import find_local, open_judge
from editloop.scoring.server_settings import ServeSettings, ServeToken
from editloop.scoring.serving.app import make_app
from editloop.scoring.serving.batching import Batcher
from editloop.scoring.serving.connection import bounded_connection
from editloop.scoring.serving.fair_share import FairShare
from editloop.scoring.serving.listener import open_listener
from editloop.scoring.serving.meters import Meters
from editloop.scoring.serving.worker import Opener, Worker

log = logging.getLogger(__name__)


def serve(model: str, settings: ServeSettings, *, opener: Opener | None = None) -> None:
    """Serve a model until SIGTERM or Ctrl-C, then finish the accepted requests.

    Args:
        model: The model's address, as for `open_judge`. An alias of the registry is resolved once, so that every
            worker, now and later, has the same version.
        settings: Settings of the server.
        opener: Opens the model in a worker's process; None takes `open_judge` with the settings' passes.

    Raises:
        EditLoopError: The model cannot be opened, the port is taken, or a token is missing.
    """
    import uvicorn

    token = serve_token(settings.host)
    name = str(find_local(model).folder) if model.startswith("models:/") else model
    if opener is None and not model.startswith(("openai:", "http://", "https://")):
        find_local(name)
    log_to_stderr(with_time=True)
    devices = worker_devices(settings.workers)
    opener = opener or partial(_open_in_worker, passes=settings.passes)
    workers = [Worker(name, device, settings.request_seconds, opener) for device in devices]
    failures: list[str] = []

    def fail(reason: str) -> None:
        failures.append(reason)
        server.should_exit = True

    app = make_app(settings, Batcher(workers, settings, Meters()), token, on_failure=fail)
    with open_listener(settings.host, settings.port, f"--host {settings.host} --port {settings.port}") as listener:
        config = uvicorn.Config(
            app,
            http=bounded_connection(settings.receive_seconds, FairShare(settings.connections)),
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=[str(network) for network in settings.proxies],
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=settings.stop_seconds,
            server_header=False,
        )
        server = uvicorn.Server(config)
        host, port = listener.getsockname()[:2]
        url_host = f"[{host}]" if ":" in host else host
        count = f"{settings.workers} worker{'s' * (settings.workers > 1)}"
        print(f"{without_secrets(model)} at http://{url_host}:{port}, {count}", flush=True)
        if token is None:
            log.warning("no token: every program of this machine may ask; EDITLOOP_SERVE_TOKEN sets one")
        server.run(sockets=[listener])
    if failures:
        raise EditLoopError(failures[0])


def _open_in_worker(model: str, device: str | None, *, passes: int | None) -> Judge:
    return open_judge(model, device=device, passes=passes)


def serve_token(host: str) -> str | None:
    """Return the server's token from the environment.

    Args:
        host: The address to listen on.

    Returns:
        The token; None if none is set, which is allowed on a loopback address only.

    Raises:
        EditLoopError: No token is set, and `host` can be reached from other machines.
    """
    token = ServeToken().serve_token
    if token is not None:
        return token.get_secret_value()
    if not _is_loopback(host):
        raise EditLoopError(
            f"--host {host} is reached from other machines, and EDITLOOP_SERVE_TOKEN is not set. Set it here and as "
            "EDITLOOP_JUDGE_TOKEN where scores are asked for: export EDITLOOP_SERVE_TOKEN=$(openssl rand -hex 32)"
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def worker_devices(workers: int) -> list[str | None]:
    """Return a device for each worker: several GPUs in turn, otherwise None, which lets the model choose.

    GPUs are counted without torch, whose import is slow.

    Args:
        workers: Number of workers.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = (
        [path.name for path in Path("/dev").glob("nvidia[0-9]*")]
        if visible is None
        else [name for name in visible.split(",") if name.strip()]
    )
    return [f"cuda:{index % len(names)}" if len(names) > 1 else None for index in range(workers)]
