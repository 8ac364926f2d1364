"""Clients of services: what each of them would read from files anew is read once a process."""

import ssl

import pytest
from botocore.loaders import JSONFileLoader
from pydantic import SecretStr

from annotation.campaigns.label_studio import LabelStudioApi
from editloop.object_storage import ObjectFolder
from infra.settings import ServiceSettings

LOCAL = "http://127.0.0.1:9"


def read_again(*arguments: object, **options: object) -> None:
    raise AssertionError("read again")


def test_a_client_of_label_studio_reads_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServiceSettings(label_studio_url=LOCAL, label_studio_token=SecretStr("a-secret"))
    LabelStudioApi(settings)
    monkeypatch.setattr(ssl, "create_default_context", read_again)
    LabelStudioApi(settings)


def test_a_client_of_object_storage_reads_no_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("DEFAULT_REGION", "c")):
        monkeypatch.setenv(f"AWS_{name}", value)
    assert ObjectFolder("s3://bucket/one")._client.meta.region_name == "c"
    monkeypatch.setattr(JSONFileLoader, "load_file", read_again)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "d")
    assert ObjectFolder("s3://bucket/two")._client.meta.region_name == "d", "what changes counts for the next client"
