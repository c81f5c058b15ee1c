"""From stacks of pictures to features: the convolutional network of Mnih et al. (2015).

Dimensions: C pictures in a stack · H height · W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chibit.models.mlp import Encoder


class ConvolutionalEncoder(Encoder):
    """Three convolutions without padding and one linear layer; ReLU after each but the last."""

    def __init__(
        self,
        image_shape: tuple[int, ...],
        width: int,
        *,
        final: type[nn.Module] = nn.Identity,
        standardize: bool = False,
    ) -> None:
        """Build the encoder.

        Args:
            image_shape: (C, H, W) of an observation.
            width: size of the features.
            final: what follows the linear layer: nn.ReLU, nn.Tanh, or nothing.
            standardize: give each picture mean 0 and standard deviation 1 over its pixels, where it is not of
                one color. A game's background is then near 0 and not in every feature.
        """
        super().__init__()
        channels, height, width_in = image_shape
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 32, 8, stride=4),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 4, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, stride=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
        )
        with torch.no_grad():
            size = self.convolutions(torch.zeros(1, channels, height, width_in)).shape[1]
        self.linear = nn.Linear(size, width)
        self.final = final()
        self.standardize = standardize
        self.width = width

    def forward(self, pictures: Tensor) -> Tensor:
        """Map (..., C, H, W) uint8 to features (..., width)."""
        batch = pictures.shape[:-3]
        # Copied here and not before: the stacks of a window overlap, and are views of the same pictures.
        x = pictures.flatten(0, -4).float() / 255.0 if len(batch) > 1 else pictures.float() / 255.0
        if self.standardize:
            x = F.layer_norm(x, x.shape[-2:])
        features: Tensor = self.final(self.linear(self.convolutions(x)))
        return features.unflatten(0, batch) if len(batch) > 1 else features
