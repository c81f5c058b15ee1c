"""Registries that grow: what the package, a user's module and installed packages add under a key."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TypeVar

from chibit.core.errors import InputError, UserError, first_line

T = TypeVar("T")
OWN_MODULES = "CHIBIT_PLUGINS"
"""Environment variable that names a user's modules, with commas between; every command imports them."""
_log = logging.getLogger(__name__)


class Registry(Mapping[str, T]):
    """Key to entry, in the order of registration; plugins are imported at the first look."""

    def __init__(self, group: str) -> None:
        """Begin empty.

        Args:
            group: of the entry points with which installed packages name the modules that add entries, or
                things in them. One that cannot be imported is left out with a warning.
        """
        self.group = group
        self._entries: dict[str, T] = {}
        self._has_plugins = False

    def put(self, key: str, entry: T) -> None:
        """Take in an entry, in place of one with its key."""
        self._entries[key] = entry

    def _all(self) -> dict[str, T]:
        if not self._has_plugins:
            self._has_plugins = True
            for plugin in importlib.metadata.entry_points(group=self.group):
                if plugin.module not in sys.modules:  # else it is registered, or just being imported
                    try:
                        plugin.load()
                    except Exception as error:
                        _log.warning("plugin %s is left out: %s", plugin.value, first_line(error))
            for module in filter(None, os.environ.get(OWN_MODULES, "").split(",")):
                import_own(module, OWN_MODULES)
        return self._entries

    def __getitem__(self, key: str) -> T:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def import_own(module: str, flag: str) -> ModuleType:
    """Import a user's module; the current folder is searched last.

    Args:
        module: its name.
        flag: what named it, for the message.

    Raises:
        InputError: if it cannot be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(module)
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(
            f"{flag}: {module} cannot be imported ({reason}); run in its folder or set PYTHONPATH"
        ) from error
