"""Actors that play Atari for data: a convolutional network in a safetensors file, and dice.

The file holds float32 tensors: `conv1`, `conv2`, `conv3` (kernels 8, 4 and 3 at strides 4, 2 and 1, no
padding), `linear` and `actor`, each with `.weight` and `.bias`, ReLU between them. The network takes four
stacked 84x84 pictures, divided by 255, and gives a logit for each action of the game's minimal set. The
largest is taken: actors that were trained with an entropy bonus leave most actions to chance, and data of
theirs say little about what matters. The names in the A2C and ACKTR actors of Kostrikov's
`pytorch-a2c-ppo-acktr` are known too.

Dimensions: E games played at once · A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from chibit.core.errors import DamagedFileError, InputError
from chibit.core.tensors import read_safetensors

_KERNELS, _STRIDES = (8, 4, 3), (4, 2, 1)
_ALIASES = {
    "ab1.bias": "conv1.bias",
    "ab2.bias": "conv2.bias",
    "ab3.bias": "conv3.bias",
    "linear1.weight": "linear.weight",
    "ab_fc1.bias": "linear.bias",
    "actor_linear.weight": "actor.weight",
    "ab_fc3.bias": "actor.bias",
}
_LAYERS = ("conv1", "conv2", "conv3", "linear", "actor")
_FEATURE_PIXELS = 7 * 7

Actor = Callable[[np.ndarray], np.ndarray]
"""(E, 4, 84, 84) uint8 to (E,) int64 actions."""
Dice = Callable[[np.ndarray, Sequence[np.random.Generator]], np.ndarray]
"""The same with E generators, one for each game."""


def load_actor(path: Path, num_actions: int) -> Actor:
    """Load an actor.

    Args:
        path: the safetensors file.
        num_actions: size of the game's action set.
    """
    tensors = _read(path)
    channels = 4
    for index, kernel in enumerate(_KERNELS):
        name = _LAYERS[index]
        weight = tensors[f"{name}.weight"]
        _check(path, name, weight, (len(weight), channels, kernel, kernel))
        channels = len(weight)
    _check(
        path, "linear", tensors["linear.weight"], (len(tensors["linear.weight"]), _FEATURE_PIXELS * channels)
    )
    _check(path, "actor", tensors["actor.weight"], (num_actions, len(tensors["linear.weight"])))
    for name in _LAYERS:
        _check(path, f"{name}.bias", tensors[f"{name}.bias"], (len(tensors[f"{name}.weight"]),))

    def act(observations: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return _logits(tensors, torch.from_numpy(observations)).argmax(dim=-1).numpy()

    return act


def with_dice(actor: Actor | None, epsilon: float, num_actions: int) -> Dice:
    """Let an actor take a random action with probability `epsilon`; without an actor all of them are random.

    Every game draws from its own generator, and as often whatever it draws, so that it does not depend on
    the games beside it.
    """

    def act(observations: np.ndarray, generators: Sequence[np.random.Generator]) -> np.ndarray:
        rolled = np.array([generator.random() < epsilon for generator in generators])
        dice = np.array([generator.integers(num_actions) for generator in generators])
        if actor is None:
            return dice
        return np.where(rolled, dice, actor(observations))

    return act


def _logits(tensors: dict[str, Tensor], pictures: Tensor) -> Tensor:
    x = pictures.float() / 255.0
    for name, stride in zip(_LAYERS, _STRIDES, strict=False):
        x = torch.relu(F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], stride=stride))
    x = torch.relu(F.linear(x.flatten(1), tensors["linear.weight"], tensors["linear.bias"]))
    return F.linear(x, tensors["actor.weight"], tensors["actor.bias"])


def _read(path: Path) -> dict[str, Tensor]:
    found, _ = read_safetensors(path)
    tensors = {_ALIASES.get(name, name): tensor.float() for name, tensor in found.items()}
    for name in (f"{layer}.{part}" for layer in _LAYERS for part in ("weight", "bias")):
        if name not in tensors:
            listed = ", ".join(sorted(found)[:12]) or "nothing"
            raise InputError(f"{path}: no tensor {name}; found {listed}; see docs/data.md for the format")
        if not torch.isfinite(tensors[name]).all():
            raise DamagedFileError(f"{path}: tensor {name} holds a number that is not finite")
        if name.endswith("bias"):
            tensors[name] = tensors[name].flatten()
    return tensors


def _check(path: Path, name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise InputError(
            f"{path}: {name} has shape {tuple(tensor.shape)}, expected {expected}; is it another game's "
            "actor?"
        )
