"""The bar of a long loop: on stderr at a terminal, and nowhere else."""

import pytest

from editloop.progress import track


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_is_for_people_at_a_terminal(
    is_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(track(iter("abc"), "letters", total=3)) == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("letters" in printed.err) is is_terminal
    assert is_terminal or printed.err == ""
