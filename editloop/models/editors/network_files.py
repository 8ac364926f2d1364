"""Fill a network of ours from released safetensors files, a tensor at a time, by its names or by those of a release.

Names and shapes are compared before a tensor is read. The weights are in memory once, and one stored tensor besides.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate.utils import set_module_tensor_to_device
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from editloop.models.backbones.weight_files import StoredTensor, check_keys, read_tensors, survey_weights

Network = TypeVar("Network", bound=ModelMixin)


class PartReader(NamedTuple):
    """How a module of a pipeline is read that its class's `from_pretrained` does not read."""

    read: Callable[[torch.dtype, torch.device], nn.Module]
    """Reads it, its weights in a type and on a device."""
    outline: Callable[[], nn.Module]
    """Returns it on the meta device."""


class StoredRows(NamedTuple):
    """A weight of a network as a release stores it: a tensor, or rows of one."""

    stored: StoredTensor
    ranges: tuple[tuple[int, int], ...] = ()
    """First row and the row after the last of each piece, in order. Empty means the whole tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the weight."""
        if not self.ranges:
            return self.stored.shape
        return (sum(stop - start for start, stop in self.ranges), *self.stored.shape[1:])

    def cut(self, tensor: Tensor) -> Tensor:
        """Return the weight as a tensor of its own.

        Args:
            tensor: The stored tensor.
        """
        return torch.cat([tensor[start:stop] for start, stop in self.ranges]) if self.ranges else tensor


def network_outline(network_class: type[Network], config: Mapping[str, Any]) -> Network:
    """Return a network on the meta device, which takes no memory.

    Args:
        network_class: Its class.
        config: Its configuration.
    """
    builder: Any = network_class  # from_config has no types
    with torch.device("meta"):
        outline: Network = builder.from_config(dict(config)).eval()
    return outline


def read_network_config(network_class: type[ModelMixin], folder: Path) -> dict[str, Any]:
    """Return the configuration in a network's folder.

    Args:
        network_class: Its class.
        folder: The folder.
    """
    reader: Any = network_class  # ModelMixin is a ConfigMixin only together with it
    config: dict[str, Any] = reader.load_config(folder, local_files_only=True)
    return config


def read_network(network_class: type[Network], folder: Path, dtype: torch.dtype, device: torch.device) -> Network:
    """Read a network from a folder with `config.json` and safetensors files under the network's own names.

    Args:
        network_class: Its class.
        folder: The folder.
        dtype: Type of the weights.
        device: Where they go.

    Raises:
        EditLoopError: A weight is missing, surplus, of the wrong shape or not finite, or a file is broken.
    """
    network = network_outline(network_class, read_network_config(network_class, folder))
    weights = {name: StoredRows(stored) for name, stored in survey_weights(folder).items()}
    fill_network(network, weights, dtype, device, str(folder))
    return network


def fill_network(
    network: ModelMixin,
    weights: Mapping[str, StoredRows],
    dtype: torch.dtype,
    device: torch.device,
    source: str,
    factors: Mapping[str, float] | None = None,
) -> None:
    """Read the weights of a network that is on the meta device.

    Args:
        network: The network.
        weights: Where each weight is stored, by its name in the network.
        dtype: Type of the weights.
        device: Where they go.
        source: What a message calls the files.
        factors: Numbers to multiply weights with, by the weights' names.

    Raises:
        EditLoopError: A weight is missing, surplus, of the wrong shape or not finite.
    """
    check_keys(weights, network.state_dict(), source)
    names_by_key: dict[str, list[str]] = {}
    for name, rows in weights.items():
        names_by_key.setdefault(rows.stored.key, []).append(name)
    stored = {key: weights[names[0]].stored for key, names in names_by_key.items()}
    for key, tensor in read_tensors(stored):
        for name in names_by_key[key]:
            value = weights[name].cut(tensor)
            if factors and name in factors:
                value = value.float() * factors[name]
            set_module_tensor_to_device(network, name, device, value, dtype=dtype)
