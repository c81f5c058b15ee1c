"""Tensors in safetensors files: the one place in which they are opened. Nothing in them can run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from chibit.core.errors import DamagedFileError, InputError, UserError
from chibit.core.files import check_regular
from chibit.core.memory import check_fits


def read_safetensors(
    path: Path,
    framework: Literal["pt", "numpy"] = "pt",
    *,
    inside: Path | None = None,
    kind: type[UserError] = InputError,
    remedy: str = "fetch it again",
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a whole file.

    Args:
        path: the file.
        framework: tensors of torch, or arrays of numpy.
        inside: a folder in which the file must lie once links are followed.
        kind: class of the refusal where there is no such file, or it is none.
        remedy: what to do then.

    Returns:
        Tensors by name, copied out of the file, and what else it says of itself.

    Raises:
        UserError: of `kind`.
        DamagedFileError: if it is not a whole safetensors file.
        ResourceError: if it is larger than half of this machine's memory.
    """
    size = check_regular(path, inside=inside, kind=kind, remedy=remedy)
    check_fits(size, str(path), "it is not to be trusted, or needs a larger machine")
    try:
        with safe_open(path, framework=framework) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            if framework == "pt":  # those are views of the mapped file
                tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, OverflowError, RuntimeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise DamagedFileError(f"{path}: not a whole safetensors file ({reason}); {remedy}") from error
