"""The contract of a data format: which files it knows, and how their steps are read. One file a format."""

from __future__ import annotations

import contextlib
import inspect
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from chibit.core.errors import DamagedFileError, UserError, first_line
from chibit.core.plugins import Registry, address_of
from chibit.data.readers.columns import Reading
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import Recording


def suffix_of(path: Path) -> str:
    """A file's suffix with the dot, in lower case: ``LOG.CSV`` is a table as well."""
    return path.suffix.lower()


class Format(ABC):
    """A way in which logged episodes are kept in files; ``class Mine(Format, key="mine")`` registers it."""

    key: ClassVar[str]
    """Under which it is registered."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Of its files, in lower case with the dot."""
    expected: ClassVar[str] = ""
    """Its files in words, for messages; empty is the suffixes."""
    has_parts: ClassVar[bool] = False
    """Whether data may have named parts, such as those to train and to test on: PATH:PART."""

    def __init_subclass__(cls, *, key: str = "") -> None:
        """Register the class under a key, in place of one registered before; without one it is a base."""
        super().__init_subclass__()
        cls.key = key
        if key:
            FORMATS[key] = cls()

    def claim(self, path: Path) -> Path | None:
        """Give what `read` takes where a file or folder is of this format, else None."""
        return path if suffix_of(path) in self.suffixes and not path.is_dir() else None

    @abstractmethod
    def read(self, path: Path) -> AbstractContextManager[tuple[Recording, Origin]]:
        """Open what `claim` gave: its steps, for as long as the context lasts, and what is known of them."""

    def read_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read`, with what the user says of the file."""
        reading.refuse_said(f"{path}: data of format {self.key!r} have")
        return self.read(path)


class ColumnFormat(Format):
    """A format in which a file's columns may have any name."""

    has_time: ClassVar[bool] = False
    """Whether rows are sorted by a column of times."""

    def read(self, path: Path) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `read_as`, of a file with usual names."""
        return self.read_as(path, Reading())

    @abstractmethod
    def read_as(self, path: Path, reading: Reading) -> AbstractContextManager[tuple[Recording, Origin]]:
        """As `Format.read_as`."""


@contextlib.contextmanager
def reading_with(format: Format, path: Path) -> Iterator[None]:
    """Refuse in one line what a user's own format stumbles over.

    Raises:
        DamagedFileError: naming the file, the format's class and its error.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        address = address_of(type(format))
        if not address:
            raise
        raise DamagedFileError(
            f"{path}: format {address} cannot read it ({type(error).__name__}: {first_line(error)}); "
            "mend the file, or the format (-v shows where)"
        ) from error


def code_of(format: Format) -> str:
    """The code by which a format of a user's reads: of its module, in a notebook of all functions there.

    Where there is none to be found it is another text each time.
    """
    module = sys.modules[type(format).__module__]
    with contextlib.suppress(OSError, TypeError):
        return inspect.getsource(module)
    functions = [each for each in vars(module).values() if inspect.isfunction(each)]
    functions = [each for each in functions if each.__module__ == module.__name__]
    functions += [each for _, each in inspect.getmembers(type(format), inspect.isfunction)]
    try:
        return "".join(map(inspect.getsource, functions))
    except (OSError, TypeError):
        return uuid.uuid4().hex


FORMATS: Registry[Format] = Registry("chibit.formats")
"""Formats by key; `chibit.data.resolve` imports those of the package."""
