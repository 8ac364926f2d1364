"""What tests of several services share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from annotation.campaigns.record import Cancelled, append_event, now
from infra.services import Services
from tests.answered_campaigns import Opened, open_one
from tests.command_line import EditLoop, command_line
from tests.forked_ranks import forked_launches
from tests.served_judge import Server, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the arithmetic judge that tests share; whatever they do to it, it must go on."""
    with served(tmp_path_factory.mktemp("server"), request_seconds=20, limits={"body_megabytes": 1}) as running:
        yield running


@pytest.fixture(scope="module")
def forked_ranks() -> Iterator[None]:
    """Trainings that the tests' stages launch fork their ranks instead of starting torchrun."""
    with forked_launches():
        yield


@pytest.fixture
def opened(
    service_environment: Services, make_candidates: Callable[..., Path], tmp_path: Path
) -> Iterator[Callable[..., Opened]]:
    """opened(name, recorded=False, **parameters): an open campaign of four tasks with three edits each.

    After the test it is cancelled, so that the passes of later tests need not look at it.
    """
    campaigns: list[Opened] = []

    def open_it(name: str, **options: Any) -> Opened:
        candidates = make_candidates(4, seed=sum(map(ord, name)), candidates=3)
        campaigns.append(open_one(candidates, tmp_path / name, name, **options))
        return campaigns[-1]

    yield open_it
    for one in campaigns:
        append_event(Cancelled(key=one.campaign.key, at=now(), by="test", reason="over"), one.campaign.name)


@pytest.fixture
def editloop(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> EditLoop:
    """editloop(*arguments, **environment): a call of the command line in this process."""
    return command_line(capfd, monkeypatch)
