"""Access to Kubernetes: log in, and tell what it refuses in one line with its cure."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from editloop.errors import EditLoopError

NO_CURES: Mapping[int, str] = {}
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500
"""HTTP status of a busy API server, and the first one of a fault of its own."""


class ClusterAwayError(EditLoopError):
    """Kubernetes cannot be reached or cannot answer now, which may pass."""


def log_in() -> None:
    """Log the Kubernetes client in: with the pod's own account inside of a cluster, else as `kubectl` is.

    Raises:
        EditLoopError: There is neither.
    """
    from kubernetes import config

    try:
        config.load_incluster_config()
    except config.ConfigException:
        try:
            config.load_kube_config()
        except config.ConfigException as error:
            raise EditLoopError(f"no access to a Kubernetes cluster ({error}). Log in first.") from error


@contextmanager
def answering(cures: Mapping[int, str] = NO_CURES) -> Iterator[None]:
    """Turn what the Kubernetes client raises within the block into an EditLoopError of one line.

    Args:
        cures: What to do about a refusal, by its HTTP status.

    Raises:
        ClusterAwayError: Kubernetes does not answer a call in the block, or is too busy.
        EditLoopError: Kubernetes refuses a call in the block.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        reason = " ".join(str(error.body or error.reason).split())[:300]
        if error.status == TOO_MANY_REQUESTS or error.status >= SERVER_ERROR:
            raise ClusterAwayError(f"Kubernetes cannot answer ({error.status} {reason}). Try again later.") from error
        cure = cures.get(error.status, "Ask for access to it, or read what it says")
        raise EditLoopError(f"Kubernetes refuses ({error.status} {reason}). {cure}.") from error
    except HTTPError as error:
        raise ClusterAwayError(
            f"Kubernetes does not answer ({type(error).__name__}). Log in to the cluster, or try again later."
        ) from error
