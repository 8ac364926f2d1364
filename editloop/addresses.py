"""Secrets in addresses: a password before the host, a token or a signature in the query.

Messages, logs, MLflow's tags and parameters, and manifests hold addresses without them: `EditLoopError`, the handlers
of `editloop.logs`, `editloop.lineage.tracking.client` and `editloop.content.write_manifest` see to it, whatever text
they are given. Addresses that programs read again, such as a judge's, may hold none (`PublicAddress` of
`editloop.environment`).
"""

import re
from typing import Any

HIDDEN = "***"
"""What is shown in a secret's place."""
USER = re.compile(r"(?:://|(?<=http:/)|(?<=https:/)|(?<=ssh:/)|(?<=git:/)|(?<=ftp:/)|(?<=s3:/))([^/\s?#\"'<>]*)@")
"""What stands before the host. A password may hold an @; a path has one slash of an address's two."""
LONGEST_SCHEME = 8
"""Characters before `://` in which `ssh` or `sftp` is looked for, as in `git+ssh`."""
QUERY = re.compile(
    r"((?:[?&;#][\w.-]*(?:token|secret|passw(?:or)?d|pwd|signature|credential|api[_-]?key|access[_-]?key(?:id)?)"
    r"|[?&;#](?:sig|key|auth)|(?:^|(?<=\s))(?:password|passwd|pwd))=)[^&\s#\"'<>)]+",
    re.IGNORECASE,
)
"""A parameter whose name says that its value is a secret; libpq's `password=...` too."""


def without_secrets(text: str) -> str:
    """Return an address, or any text with addresses in it, with `***` in place of secrets.

    Args:
        text: The text. One without secrets comes back as it is.
    """
    return QUERY.sub(rf"\1{HIDDEN}", USER.sub(_hide_user, text))


def has_secrets(address: str) -> bool:
    """Return whether an address holds a password, a token or a signature.

    Args:
        address: The address.
    """
    return without_secrets(address) != address


def value_without_secrets(value: Any) -> Any:
    """Return a value of JSON in which no text holds secrets, names of keys neither.

    Args:
        value: Dictionaries, lists, texts and numbers.
    """
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {value_without_secrets(key): value_without_secrets(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [value_without_secrets(member) for member in value]
    return value


def _hide_user(match: re.Match[str]) -> str:
    scheme = match.string[max(0, match.start() - LONGEST_SCHEME) : match.start(1)]
    is_name_only = ":" not in match[1] and re.search("(ssh|sftp):/", scheme, re.IGNORECASE)
    return match[0] if is_name_only else f"{match[0].removesuffix(f'{match[1]}@')}{HIDDEN}@"
