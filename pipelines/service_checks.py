"""Whether the services that steps use answer, with the steps' log-ins and at versions that EditLoop works with.

`editloop cluster preflight` asks with what a deployment profile names, the first step of a pipeline with its own
environment.
"""

import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from editloop.datasets.git_command import git
from editloop.errors import EditLoopError
from infra.doctor import Check

ANSWER_SECONDS = 20.0
BUCKET_VARIABLES = ("EDITLOOP_PICTURES", "EDITLOOP_CHECKPOINTS", "EDITLOOP_EDITS", "EDITLOOP_OBJECTS")
"""Variables whose s3:// addresses are tried beside KFP's own."""
PROBE = b"written by editloop to try the storage; may be deleted\n"
OLDEST_MLFLOW, OLDEST_LABEL_STUDIO, OLDEST_KFP = (3,), (1, 20), (2, 17)
"""Oldest versions that EditLoop works with."""


def check_services(variables: Mapping[str, str], pipeline_root: str = "") -> list[Check]:
    """Check MLflow, Label Studio, object storage and the dataset repository, as far as the variables name them.

    Args:
        variables: Environment variables of a step, secrets too.
        pipeline_root: Address below which KFP keeps what steps write; empty where it is not known.
    """
    checks: list[Check] = []
    if uri := variables.get("MLFLOW_TRACKING_URI", ""):
        account = (variables.get("MLFLOW_TRACKING_USERNAME", ""), variables.get("MLFLOW_TRACKING_PASSWORD", ""))
        checks += _mlflow_checks(uri.rstrip("/"), account)
    if url := variables.get("EDITLOOP_LABEL_STUDIO_URL", ""):
        checks += _label_studio_checks(url.rstrip("/"), variables.get("EDITLOOP_LABEL_STUDIO_TOKEN", ""))
    addresses = [pipeline_root, *(variables.get(name, "") for name in BUCKET_VARIABLES)]
    for address in dict.fromkeys(address for address in addresses if urlsplit(address).scheme == "s3"):
        checks.append(_storage_check(address, variables))
    if repository := variables.get("EDITLOOP_DATASET_REPO", ""):
        checks += _repository_checks(repository)
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
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    key = f"{prefix.rstrip('/')}/editloop-probe-{uuid.uuid4().hex}".lstrip("/")
    advice = "correct address, endpoint and log-in; the account must write, read and delete there"
    try:
        storage = boto3.client(
            "s3",
            endpoint_url=variables.get("AWS_ENDPOINT_URL") or None,
            region_name=variables.get("AWS_DEFAULT_REGION") or None,
            aws_access_key_id=variables.get("AWS_ACCESS_KEY_ID") or None,
            aws_secret_access_key=variables.get("AWS_SECRET_ACCESS_KEY") or None,
            config=Config(connect_timeout=ANSWER_SECONDS, read_timeout=ANSWER_SECONDS, retries={"max_attempts": 2}),
        )
        storage.put_object(Bucket=bucket, Key=key, Body=PROBE)
        is_same = storage.get_object(Bucket=bucket, Key=key)["Body"].read() == PROBE
        storage.delete_object(Bucket=bucket, Key=key)
    except (BotoCoreError, ClientError, ValueError) as error:
        return Check(f"storage {address}", False, " ".join(str(error).split()), advice)
    state = "written and read" if is_same else "gives back other bytes than were written"
    return Check(f"storage {address}", is_same, state, advice)


def _repository_checks(repository: str) -> Iterator[Check]:
    """Check that git reaches the dataset repository. A folder on this machine is made when it is first needed."""
    if Path(repository).is_absolute():
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            git(Path(folder), "ls-remote", "--heads", repository)
        except EditLoopError as error:
            advice = "correct EDITLOOP_DATASET_REPO, or give its credentials to git"
            yield Check("dataset repository", False, " ".join(str(error).split()), advice)
            return
    yield Check("dataset repository", True, repository)
