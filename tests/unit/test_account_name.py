"""One spelling for each person, and nothing that Label Studio's sign-up form would refuse."""

import pytest

from editloop.data.account_name import account_name, email_of


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        (("ada", "Ada", " ada\n", "ada@editloop.example", "ADA@EditLoop.Example", "ａｄａ"), "ada"),
        (("ann@team.example", "Ann@Team.Example"), "ann@team.example"),
        (("bo@münchen.example", "bo@xn--mnchen-3ya.example", "bo@mu\u0308nchen.example"), "bo@xn--mnchen-3ya.example"),
        (("eve+labels@team.example",), "eve+labels@team.example"),
        (("o'neil@team.local",), "o'neil@team.local"),
        (("root@localhost",), "root@localhost"),
    ],
)
def test_the_spellings_of_one_person_are_one_name(texts: tuple[str, ...], name: str) -> None:
    assert {account_name(text) for text in texts} == {name}
    assert account_name(email_of(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "@", "ada@", "@team.example", "a b", "ada bo@team.example", "ada@team", "ada@team.example,bo"),
        *("[/red]", "jürgen", "ada\x1b[31m", "ada@a@b.example", "Ada <ada@team.example>", "a@[127.0.0.1]", "x" * 65),
        *("ada.", "\ud800", "ada@team.example\0", f"{'x' * 60}@{'y' * 63}.{'z' * 63}.{'w' * 63}.{'v' * 63}.example"),
    ],
)
def test_what_nobody_can_sign_up_with_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (address|account name)"):
        account_name(text)
