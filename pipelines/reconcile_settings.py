"""What the reconciler may start by itself, where it gets hints from, and with what secret."""

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, SecretStr

from editloop.environment import EnvironmentSettings, PublicAddress
from editloop.settings_file import FrozenModel, find_preset, read_settings

POLICIES = Path(__file__).with_name("policies")
"""Those that ship."""
Decision = Literal["start", "report"]
"""`start` a run that is due, or `report` it as due and leave its start to people."""


class ReconcilePolicy(FrozenModel):
    """Which runs the reconciler starts. A run that a person started under its key is watched and retried either way."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    train_reward: Decision = "start"
    """train-reward, for a campaign's latest closing."""
    improve_editor: Decision = "start"
    """improve-editor, for a new reward champion."""
    next_campaign: Decision = "report"
    """collect-preferences, for a new editor champion. It asks for experts' time."""

    def decision(self, pipeline: str) -> Decision:
        """Return what happens to a pipeline that is due.

        Args:
            pipeline: The pipeline.
        """
        decisions: dict[str, Decision] = {
            "train-reward": self.train_reward,
            "improve-editor": self.improve_editor,
            "collect-preferences": self.next_campaign,
        }
        return decisions[pipeline]


class ReconcileSettings(EnvironmentSettings):
    """Settings of the reconciler."""

    policy: str = "default"
    """The policy: a shipped one, or the path of a YAML file."""
    hint_secret: SecretStr | None = None
    """What senders of hints prove that they know. `editloop reconcile --listen` needs it."""
    hint_url: PublicAddress | None = None
    """Address of `--listen`'s endpoint as Label Studio reaches it, such as http://reconcile:8421/hint. The project of
    each campaign gets a webhook to it. Unset: none does."""


def read_policy(name: str) -> ReconcilePolicy:
    """Read a policy.

    Args:
        name: The name of a shipped policy, or the path of a YAML file.

    Raises:
        EditLoopError: There is no such policy, or it is not valid.
    """
    return read_settings(ReconcilePolicy, find_preset(name, POLICIES, "policy"), "policy")
