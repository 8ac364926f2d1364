"""Names of people's accounts in Label Studio: one spelling for each person."""

import unicodedata

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from editloop.settings_file import shorten

PRIVATE_DOMAINS = ("local", "localhost", "test")
"""Domains that no mail reaches from outside, but that a team's own network may use for its accounts."""
SPECIAL_USE_DOMAIN_NAMES[:] = [name for name in SPECIAL_USE_DOMAIN_NAMES if name not in PRIVATE_DOMAINS]
DOMAIN = "editloop.example"
"""Domain of the address of a person whose name has no @."""


def account_name(text: str) -> str:
    """Return the one spelling of a person's account name.

    Case, spaces around it and Unicode forms make no other person, and neither does DOMAIN. Label Studio has no accounts
    whose addresses differ in case alone.

    Args:
        text: An address, or a name that stands for the address in DOMAIN.

    Returns:
        The address in small letters; of one in DOMAIN the part before the @.

    Raises:
        ValueError: It is neither, or no address that Label Studio takes.
    """
    name = unicodedata.normalize("NFKC", text).strip()
    address = name if "@" in name else f"{name}@{DOMAIN}"
    try:
        checked = validate_email(
            address,
            check_deliverability=False,
            globally_deliverable=False,
            allow_smtputf8=False,
            strict=True,
        )
    except EmailNotValidError as error:
        kind = "address" if "@" in name else f"account name, the part of an address before @{DOMAIN}"
        raise ValueError(f"{shorten(text)} is no {kind} ({error})") from None
    local, _, domain = str(checked.ascii_email).lower().partition("@")
    if "." not in domain and domain != "localhost":
        raise ValueError(f"{shorten(text)} is no address that Label Studio takes: its domain has no dot")
    return local if domain == DOMAIN else f"{local}@{domain}"


def email_of(name: str) -> str:
    """Return the address of a person's account.

    Args:
        name: What `account_name` returned.
    """
    return name if "@" in name else f"{name}@{DOMAIN}"
