"""Memory: how much may be asked for, files that are read whole, and one line where there is not enough."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from chibit.core.errors import DamagedFileError, ResourceError
from chibit.core.files import check_regular, read_regular
from chibit.core.platform import kernel_table, limit_data, memory_limits, total_memory

_TORCH_SAYS = ("can't allocate memory", "not enough memory", "out of memory")


def memory_budget() -> int:
    """Half of this machine's memory, in bytes: the most that one file or one batch may ask for."""
    return total_memory() // 2


def check_fits(num_bytes: int, what: str, remedy: str, budget: int | None = None) -> None:
    """Refuse before anything is allocated.

    Args:
        num_bytes: what it will take.
        what: what takes it, for the message.
        remedy: what to do, for the message.
        budget: bytes that a device has; None is `memory_budget`.

    Raises:
        ResourceError: if it takes more than that.
    """
    most = memory_budget() if budget is None else budget
    if num_bytes > most:
        there = "half of this machine's memory" if budget is None else "there is on the device"
        shown = f"{num_bytes // 10**9:,}" if num_bytes < 10**15 else "a million and more"
        raise ResourceError(f"{what} takes {shown} GB, more than {there} ({most / 1e9:.1f} GB); {remedy}")


def perceptron_bytes(*, inputs: int, hidden_sizes: Sequence[int], outputs: int, rows: int) -> int:
    """What training a multi-layer perceptron takes, from below: weights, and activations of a batch."""
    widths = (inputs, *hidden_sizes, outputs)
    weights = sum(before * after for before, after in itertools.pairwise(widths))
    return 16 * weights + 4 * rows * sum(widths)


def read_whole(path: Path, remedy: str, *, inside: Path | None = None, sha256: str | None = None) -> bytes:
    """Read a file whose content is needed at once.

    Args:
        path: the file.
        remedy: what to do if it is missing or cannot be read.
        inside: a folder in which it must lie once links are followed.
        sha256: what is written down of its content.

    Raises:
        DamagedFileError: if it is missing, cannot be read, lies elsewhere, or has another content.
        ResourceError: if it is larger than `memory_budget`; it is then not opened.
    """
    size = check_regular(path, inside=inside, kind=DamagedFileError, remedy=remedy)
    check_fits(size, str(path), "it is not to be trusted, or needs a larger machine")
    content = read_regular(path, inside=inside, most=memory_budget(), kind=DamagedFileError, remedy=remedy)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedFileError(f"{path}: content does not match the SHA-256 written down for it; {remedy}")
    return content


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's, numpy's or torch's means that an allocation failed."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH_SAYS)


@contextlib.contextmanager
def limited_memory(device_type: str, remedy: str = "lower batch_size or the model's size") -> Iterator[None]:
    """Keep work on the CPU from taking memory that the machine does not have.

    Linux would promise more than there is and later kill this process or another one. Within the context an
    allocation beyond what is free now fails instead.

    Args:
        device_type: of the device of the work; drivers of others than the CPU map memory that they do not
            use, so that there is no limit.
        remedy: what to do, for the message.

    Raises:
        ResourceError: in one line, for an allocation that failed.
    """
    give_back: Callable[[], None] | None = None
    free, own = _kilobytes("/proc/meminfo", "MemAvailable"), _kilobytes("/proc/self/status", "VmData")
    if free and own and device_type == "cpu":
        left = min([1024 * free, *(max(0, limit - taken) for limit, taken in memory_limits())])
        give_back = limit_data(left + 1024 * own)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        asked = re.search(r"(\d{6,}) bytes|Unable to allocate ([\d.]+ \w+)", str(error))
        reason = asked[0] if asked else "an allocation failed"
        raise ResourceError(f"out of memory ({reason}); {remedy}") from error
    finally:
        if give_back is not None:
            give_back()


def _kilobytes(file: str, name: str) -> int | None:
    """A line of one of Linux's tables; None elsewhere."""
    lines = kernel_table(file)
    return next((int(line.split()[1]) for line in lines if line.startswith(name + ":")), None)
