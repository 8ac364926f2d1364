"""Whether the services that steps use answer, with the steps' log-ins and at versions that EditLoop works with.

`editloop cluster preflight` asks with what a deployment profile names, the first step of a pipeline with its own
environment.
"""

import re
import uuid
from collections.abc import Iterator, Mapping

import httpx

from editloop.datasets.checkout import is_url
from editloop.environment import environment_variables
from editloop.errors import EditLoopError
from editloop.object_storage import ObjectFolder, is_address
from infra.doctor import Check, repository_check

ANSWER_SECONDS = 20.0
BUCKET_VARIABLES = (
    *("EDITLOOP_PICTURES", "EDITLOOP_CHECKPOINTS", "EDITLOOP_EDITS", "EDITLOOP_OBJECTS", "EDITLOOP_DATASET_REMOTE"),
)
"""Variables whose s3:// addresses are tried beside KFP's own."""
PROBE = b"written by editloop to try the storage; may be deleted\n"
STORAGE_TRIES = "3"
"""Tries of a request where AWS_MAX_ATTEMPTS does not say: a check does not wait for a storage that is away."""
OLDEST_MLFLOW, OLDEST_LABEL_STUDIO, OLDEST_KFP = (3,), (1, 20), (2, 17)
"""Oldest versions that EditLoop works with."""


def check_services(variables: Mapping[str, str], pipeline_root: str = "", *, own_folders: bool = False) -> list[Check]:
    """Check MLflow, Label Studio, object storage and the dataset repository, as far as the variables name them.

    Args:
        variables: Environment variables of a step, secrets too.
        pipeline_root: Address below which KFP keeps what steps write; empty where it is not known.
        own_folders: Whether the folders that the variables name are this machine's.
    """
    checks: list[Check] = []
    if uri := variables.get("MLFLOW_TRACKING_URI", ""):
        account = (variables.get("MLFLOW_TRACKING_USERNAME", ""), variables.get("MLFLOW_TRACKING_PASSWORD", ""))
        checks += _mlflow_checks(uri.rstrip("/"), account)
    if url := variables.get("EDITLOOP_LABEL_STUDIO_URL", ""):
        checks += _label_studio_checks(url.rstrip("/"), variables.get("EDITLOOP_LABEL_STUDIO_TOKEN", ""))
    addresses = [pipeline_root, *(variables.get(name, "") for name in BUCKET_VARIABLES)]
    for address in dict.fromkeys(address for address in addresses if is_address(address)):
        checks.append(_storage_check(address, variables))
    repository = variables.get("EDITLOOP_DATASET_REPO", "")
    if repository and (own_folders or is_url(repository)):
        remote = variables.get("EDITLOOP_DATASET_REMOTE") if own_folders else None
        checks.append(repository_check(repository, remote or None))
    return checks


def version_check(name: str, version: str, oldest: tuple[int, ...]) -> Check:
    """Check a service's version.

    Args:
        name: The service.
        version: What it says.
        oldest: The oldest version that EditLoop works with.
    """
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[: len(oldest)])
    required = ".".join(map(str, oldest))
    if not numbers:
        return Check(name, True, f"answers, does not tell its version; {required} is needed")
    return Check(name, numbers >= oldest, version, f"install {required} or later")


def _mlflow_checks(uri: str, account: tuple[str, str]) -> Iterator[Check]:
    advice = "start it, or correct MLFLOW_TRACKING_URI; behind kubectl port-forward set it in this shell"
    login = httpx.BasicAuth(*account) if account[0] else None
    with httpx.Client(auth=login, timeout=ANSWER_SECONDS) as client:
        try:
            version = client.get(f"{uri}/version")
            listing = client.post(f"{uri}/api/2.0/mlflow/experiments/search", json={"max_results": 1})
            champion = client.get(
                f"{uri}/api/2.0/mlflow/registered-models/alias", params={"name": "edit-reward", "alias": "champion"}
            )
        except httpx.HTTPError as error:
            yield Check("MLflow", False, f"{uri} does not answer ({type(error).__name__})", advice)
            return
    if listing.status_code in (401, 403):
        cure = "correct MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the Secret that holds them"
        yield Check("MLflow", False, f"{uri} refuses the log-in of {account[0] or 'nobody'}", cure)
        return
    if not (version.is_success and listing.is_success):
        yield Check("MLflow", False, f"{uri} answers {listing.status_code}, as no MLflow does", advice)
        return
    yield version_check("MLflow", version.text.strip(), OLDEST_MLFLOW)
    state = "there" if champion.is_success else "none yet: train-reward makes it, and improve-editor needs it"
    yield Check("reward champion", True, state)


def _label_studio_checks(url: str, token: str) -> Iterator[Check]:
    advice = "start it, or correct EDITLOOP_LABEL_STUDIO_URL; behind kubectl port-forward set it in this shell"
    with httpx.Client(headers={"Authorization": f"Token {token}"}, timeout=ANSWER_SECONDS) as client:
        try:
            account = client.get(f"{url}/api/current-user/whoami")
            version = client.get(f"{url}/api/version")
        except httpx.HTTPError as error:
            yield Check("Label Studio", False, f"{url} does not answer ({type(error).__name__})", advice)
            return
    if account.status_code in (401, 403):
        cure = "set EDITLOOP_LABEL_STUDIO_TOKEN, or its Secret, to a legacy token of Account & Settings"
        yield Check("Label Studio", False, f"{url} refuses the token", cure)
        return
    release = re.search(r'"release":\s*"([^"]+)"', version.text)
    if not account.is_success or release is None:
        yield Check("Label Studio", False, f"{url} answers {account.status_code}, as no Label Studio does", advice)
        return
    yield version_check("Label Studio", release[1], OLDEST_LABEL_STUDIO)


def _storage_check(address: str, variables: Mapping[str, str]) -> Check:
    """Write, read and delete an object."""
    name, check = f"editloop-probe-{uuid.uuid4().hex}", f"storage {address}"
    settings = {name: value for name, value in variables.items() if name.startswith("AWS_")}
    try:
        with environment_variables(**{"AWS_MAX_ATTEMPTS": STORAGE_TRIES, **settings}):
            folder = ObjectFolder(address)
            folder.write(name, PROBE)
            is_same = folder.read(name) == PROBE
            folder.delete([name])
    except EditLoopError as error:
        return Check(check, False, str(error), "the account must write, read and delete there")
    return Check(check, is_same, "written and read" if is_same else "gives back other bytes than were written")
