"""Settings from environment variables: `EnvironmentSettings` reads every EDITLOOP_ variable, so that no stage knows a
laptop's path or a cluster's name.

MLflow's own variables (MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD) are read by MLflow.
"""

import os
import re
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from editloop.errors import EditLoopError

PREFIX = "EDITLOOP_"
LONGEST_VALUE = 80
"""Characters of a value in a message."""
NAMED_FIELD = re.compile(r'field "(\w+)"')
"""How pydantic-settings names the field whose text it cannot parse."""


class EnvironmentSettings(BaseSettings):
    """Settings that come from environment variables, EDITLOOP_ and the field's name in capitals.

    An empty variable is an unset one. A value that cannot be used is an EditLoopError of one line that names the
    variable, the value (unless it is a secret) and the rule.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, allow_inf_nan=False)

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _unusable([self._fault(details) for details in error.errors()]) from None
        except SettingsError as error:  # a structured field whose text is no JSON
            raise _unusable([self._json_fault(error)]) from None

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a field."""
        return f"{cls.model_config['env_prefix']}{field}".upper()

    def require(self, name: str) -> str:
        """The text of setting `name`. Raises EditLoopError that names the variable where it is not set."""
        value = getattr(self, name)
        if value is None:
            raise EditLoopError(
                f"{PREFIX}{name.upper()} is not set. Start the services with `editloop up`, which prints it, or set it "
                "to your own service's."
            )
        return str(value.get_secret_value() if isinstance(value, SecretStr) else value)

    @classmethod
    def _fault(cls, details: Any) -> str:
        """One of pydantic's findings as `VARIABLE=value: rule`, with the path of a part inside a structured value."""
        if not details["loc"]:  # a rule of several fields together
            return f"{cls.__name__}: {details['msg']}"
        field, *path = map(str, details["loc"])
        is_secret = "Secret" in str(cls.model_fields[field].annotation)
        value = "" if is_secret else f"={_short_repr(details['input'])}"
        return f"{cls.variable(field)}{''.join(f'[{part}]' for part in path)}{value}: {details['msg']}"

    @classmethod
    def _json_fault(cls, error: SettingsError) -> str:
        named = NAMED_FIELD.search(str(error))
        if named is None:
            return f"{error} ({error.__cause__})"
        variable = cls.variable(named[1])
        return f"{variable}={_short_repr(os.environ.get(variable))}: not JSON ({error.__cause__})"


def _short_repr(value: Any) -> str:
    """A value on one line of bearable length."""
    text = value if isinstance(value, str) and value.isprintable() and value.strip() else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _unusable(faults: list[str]) -> EditLoopError:
    return EditLoopError(f"{'; '.join(faults)}. Correct the variable, or unset it to take the default.")
