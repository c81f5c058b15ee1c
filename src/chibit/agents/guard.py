"""No step that is not finite changes anything, and the host waits for no device to know it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from chibit.core.errors import DivergenceError

MOST_UNREAD = 1_000
"""Steps after which the host looks at what the device has found, where nothing else made it look."""


def require_finite(step: int, rows: Tensor, **values: float | Tensor) -> None:
    """Stop before a step that would spoil the parameters.

    Args:
        step: steps taken so far, for the message; the error carries it as `step`.
        rows: (B,) rows of the data set that the batch was drawn from; the error carries them as `rows`.
        values: losses and gradient norms by name.

    Raises:
        DivergenceError: if a value is NaN or infinite.
    """
    for name, value in values.items():
        number = value.detach().item() if isinstance(value, Tensor) else value
        if not math.isfinite(number):
            error = DivergenceError(
                f"{name} is {number} at step {step}, expected a finite number; lower the learning rate, "
                "or look at the data"
            )
            error.step, error.rows = step, tuple(rows.tolist())
            raise error


class StepGuard:
    """Lets no step change anything from the first one on that is not finite.

    On a CPU, where reading a number costs nothing, such a step is refused at once. Elsewhere the host would
    have to wait for all that the device has been given; there the device itself takes no further step, and
    `check` says later which was the first.
    """

    def __init__(self, device: torch.device, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Watch the steps of optimizers; with one that is not fused, the host waits for every step."""
        optimizers = list(optimizers)
        self._failed: Tensor | None = None
        self._seen: list[tuple[int, Tensor, Mapping[str, Tensor]]] = []
        if device.type != "cpu" and all(optimizer.defaults.get("fused") for optimizer in optimizers):
            self._failed = torch.zeros((), device=device)  # 1 from the first bad step on
            for optimizer in optimizers:  # what a gradient scaler of torch would set
                optimizer.found_inf, optimizer.grad_scale = self._failed, None  # type: ignore[attr-defined]
                _begin_momentum(optimizer)

    def admit(self, step: int, rows: Tensor, **values: Tensor) -> None:
        """Ask for a step, with the arguments of `require_finite`.

        Raises:
            DivergenceError: on a CPU, if it is a bad one.
        """
        if self._failed is None:
            require_finite(step, rows, **values)
            return
        self._failed.logical_or_(~torch.stack(list(values.values())).isfinite().all())
        self._seen.append((step, rows, {name: value.detach() for name, value in values.items()}))

    @property
    def is_full(self) -> bool:
        """Whether so many steps are unread that it is time to `check`."""
        return len(self._seen) >= MOST_UNREAD

    def share(self, tau: float) -> float | Tensor:
        """How far a target network moves after a step: `tau`, or not at all if the step was not taken."""
        return tau if self._failed is None else tau * (1.0 - self._failed)

    def check(self) -> None:
        """Wait for the device, and tell of the first bad step since the last time.

        Raises:
            DivergenceError: as `require_finite` for that step.
        """
        seen, self._seen = self._seen, []
        if seen and self._failed is not None and self._failed.item():
            self._failed.zero_()
            for step, rows, values in seen:
                require_finite(step, rows, **values)


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Fused SGD leaves momentum unset where it leaves the first step out; from 0 that step is the same."""
    if isinstance(optimizer, torch.optim.SGD) and not optimizer.defaults["dampening"]:
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
