"""Memory: how much may be asked for, files that are read whole, and one line where there is not enough."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from chibit.core.errors import DamagedFileError, ResourceError
from chibit.core.files import check_regular, read_regular
from chibit.core.platform import kernel_table, limit_data, total_memory

_TORCH_SAYS = ("can't allocate memory", "not enough memory", "out of memory")


def memory_budget() -> int:
    """Half of this machine's memory, in bytes: the most that one file or one batch may ask for."""
    return total_memory() // 2


def check_fits(num_bytes: int, what: str, remedy: str) -> None:
    """Refuse before anything is allocated; ResourceError if `what` takes more than `memory_budget`."""
    if num_bytes > memory_budget():
        gigabytes, budget = num_bytes / 1e9, memory_budget() / 1e9
        raise ResourceError(
            f"{what} takes {gigabytes:,.1f} GB, more than half of this machine's memory ({budget:.1f} GB); "
            f"{remedy}"
        )


def read_whole(path: Path, remedy: str) -> bytes:
    """Read a file whose content is needed at once.

    Args:
        path: the file.
        remedy: what to do if it is missing or cannot be read.

    Raises:
        DamagedFileError: if it is missing or cannot be read.
        ResourceError: if it is larger than `memory_budget`; it is then not opened.
    """
    size = check_regular(path, kind=DamagedFileError, remedy=remedy)
    check_fits(size, str(path), "it is not to be trusted, or needs a larger machine")
    return read_regular(path, most=memory_budget(), kind=DamagedFileError, remedy=remedy)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's, numpy's or torch's means that an allocation failed."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH_SAYS)


@contextlib.contextmanager
def limited_memory(device: str) -> Iterator[None]:
    """Keep work on the CPU from taking memory that the machine does not have.

    Linux would promise more than there is and later kill this process or another one. Within the context an
    allocation beyond what is free now fails instead.

    Args:
        device: a CUDA device maps memory that it does not use, and is not limited.

    Raises:
        ResourceError: in one line, for an allocation that failed.
    """
    give_back: Callable[[], None] | None = None
    free, own = _kilobytes("/proc/meminfo", "MemAvailable"), _kilobytes("/proc/self/status", "VmData")
    if free and own and not device.startswith("cuda"):
        give_back = limit_data(1024 * (free + own))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        asked = re.search(r"(\d{6,}) bytes|Unable to allocate ([\d.]+ \w+)", str(error))
        reason = asked[0] if asked else "an allocation failed"
        raise ResourceError(f"out of memory ({reason}); lower batch_size or the model's size") from error
    finally:
        if give_back is not None:
            give_back()


def _kilobytes(file: str, name: str) -> int | None:
    """A line of one of Linux's tables; None elsewhere."""
    lines = kernel_table(file)
    return next((int(line.split()[1]) for line in lines if line.startswith(name + ":")), None)
