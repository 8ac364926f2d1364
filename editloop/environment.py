"""Settings from environment variables.

`EnvironmentSettings` reads every EDITLOOP_ variable, so that no stage contains a laptop's path or a cluster's name.

MLflow reads its own variables (MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD).
"""

import getpass
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from editloop.addresses import has_secrets
from editloop.errors import EditLoopError
from editloop.settings_file import shorten

PREFIX = "EDITLOOP_"
NAMED_FIELD = re.compile(r'field "(\w+)"')
"""Finds the field in pydantic-settings' message about a text that it cannot parse."""


def _public_address(address: str) -> str:
    if has_secrets(address):
        raise ValueError(
            "a password or a token in an address that is written into pages, tags and files; give it by a variable of "
            "its own"
        )
    return address


PublicAddress = Annotated[str, AfterValidator(_public_address)]
"""An address that may be written down, and read again: it holds no secrets."""


def login_name() -> str:
    """Return the name of the user whose program this is; in a container without that name, the user's number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


@contextmanager
def environment_variables(**values: str) -> Iterator[None]:
    """Set environment variables within the block.

    Args:
        **values: The variables by name.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


class EnvironmentSettings(BaseSettings):
    """Settings read from environment variables. A variable's name is EDITLOOP_ and the field's name in capitals.

    An empty variable counts as unset.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, allow_inf_nan=False)

    def __init__(self, **values: Any):
        """Read the fields from the environment.

        Args:
            **values: Fields by name, used in place of their environment variables.

        Raises:
            EditLoopError: A value is not allowed. The message is one line with the variable, its value (unless it is a
                secret) and the rule.
        """
        try:
            super().__init__(**values)
            return
        except ValidationError as error:
            faults = "; ".join(self._fault(details) for details in error.errors())
        except SettingsError as error:  # a structured field whose text is not JSON
            faults = self._json_fault(error)
        raise EditLoopError(f"{faults}. Correct the variable, or unset it to take the default.")

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the name of a field's environment variable.

        Args:
            field: The field's name.
        """
        return f"{cls.model_config['env_prefix']}{field}".upper()

    def require(self, name: str) -> str:
        """Return a setting as text, where the caller cannot do without it.

        Args:
            name: The field's name.

        Raises:
            EditLoopError: The setting is not set. The message names the variable.
        """
        value = getattr(self, name)
        if value is None:
            raise EditLoopError(
                f"{PREFIX}{name.upper()} is not set. Start the services with `editloop up`, which prints it, or set it "
                "to your own service's."
            )
        return str(value.get_secret_value() if isinstance(value, SecretStr) else value)

    @classmethod
    def _fault(cls, details: Any) -> str:
        """Format one of pydantic's errors as `VARIABLE[path]=value: rule`.

        The `[path]` leads to a part of a structured value.
        """
        if not details["loc"]:  # a rule about several fields together
            return f"{cls.__name__}: {details['msg']}"
        field, *path = map(str, details["loc"])
        is_secret = "Secret" in str(cls.model_fields[field].annotation)
        value = "" if is_secret else f"={shorten(details['input'])}"
        return f"{cls.variable(field)}{''.join(f'[{part}]' for part in path)}{value}: {details['msg']}"

    @classmethod
    def _json_fault(cls, error: SettingsError) -> str:
        """Format the error about a structured field whose text is not JSON."""
        named = NAMED_FIELD.search(str(error))
        if named is None:
            return f"{error} ({error.__cause__})"
        variable = cls.variable(named[1])
        return f"{variable}={shorten(os.environ.get(variable))}: not JSON ({error.__cause__})"
