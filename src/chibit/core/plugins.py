"""Registries that grow: what the package, a user's module and installed packages add under a key."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from types import ModuleType
from typing import Any, Self, TypeVar

from chibit.core.errors import InputError, UserError, first_line
from chibit.core.files import nearest

T = TypeVar("T")
OWN_MODULES = "CHIBIT_PLUGINS"
"""Environment variable that names a user's modules, with commas between; every command imports them."""
_ADDRESS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_log = logging.getLogger(__name__)


class Registry(MutableMapping[str, T]):
    """Key to entry, in the order of registration; plugins are imported at the first look.

    No module of the package may look while it is imported: a plugin needs all of it.
    """

    def __init__(self, group: str) -> None:
        """Begin empty.

        Args:
            group: of the entry points with which installed packages name the modules that add entries, or
                things in them. One that cannot be imported is left out with a warning.
        """
        self.group = group
        self._entries: dict[str, T] = {}
        self._has_plugins = False

    @property
    def so_far(self) -> Mapping[str, T]:
        """Entries that were registered until now; no plugin is imported for it."""
        return self._entries

    def _all(self) -> dict[str, T]:
        if not self._has_plugins:
            self._has_plugins = True
            for plugin in importlib.metadata.entry_points(group=self.group):
                try:
                    self._load(plugin)
                except Exception as error:
                    _log.warning("plugin %s is left out: %s", plugin.value, first_line(error))
            for module in own_modules():
                import_own(module, OWN_MODULES)
        return self._entries

    def _load(self, plugin: importlib.metadata.EntryPoint) -> None:
        if plugin.module not in sys.modules:  # else it is registered, or just being imported
            plugin.load()

    def __getitem__(self, key: str) -> T:
        return self._all()[key]

    def __setitem__(self, key: str, entry: T) -> None:
        self._entries[key] = entry

    def __delitem__(self, key: str) -> None:
        del self._entries[key]

    def __ior__(self, entries: Mapping[str, T]) -> Self:
        self.update(entries)
        return self

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class AddressedRegistry(Registry[T]):
    """A registry of things that a user names by MODULE:NAME as well."""

    def __init__(self, what: str, plural: str, flag: str, expected: str, kind: type[T] | None = None) -> None:
        """Begin empty.

        Args:
            what: a thing, for messages.
            plural: things; ``chibit.PLURAL`` is the group of entry points.
            flag: takes MODULE:NAME, for messages.
            expected: what there should be under that name, for messages.
            kind: class of things that need no registration: being there under a name is enough.
        """
        super().__init__(f"chibit.{plural}")
        self._what, self._flag, self._expected, self._kind = what, flag, expected, kind
        self._sources: dict[str, tuple[Any, str]] = {}  # what was registered, and its MODULE:NAME

    def add(self, key: str, thing: T, source: Any, address: str) -> None:
        """Take in a thing; one that is defined anew, as in a notebook, replaces itself.

        Args:
            key: its name.
            thing: what is looked up.
            source: the class or function that stands under its address.
            address: MODULE:NAME.

        Raises:
            InputError: if another one has that name.
        """
        there = self._sources[key][1] if key in self._entries else address
        if there != address:
            raise InputError(f"{address}: {self._what} {key!r} is {there} already; give it another name")
        self._entries[key], self._sources[key] = thing, (source, address)

    def find(self, key: Any, where: str, address: Any = "") -> T:
        """Give what a flag or a file names. Nothing is imported for it.

        Args:
            key: its name.
            where: what names it, for the message.
            address: MODULE:NAME that the file says it comes from.

        Raises:
            InputError: if it is not known, with what to do.
        """
        if isinstance(key, str) and key in self:
            return self[key]
        if is_address(address):
            remedy = f"give {self._flag} {address} (in Python: import {address.partition(':')[0]})"
            raise InputError(f"{where}: {key!r} is not chibit's own; {remedy}")
        known = f"known: {', '.join(self)}, and your own as MODULE:NAME"
        raise InputError(f"{where}: got {key!r}{nearest(str(key), self)}; {known}")

    def load(self, address: str) -> str:
        """Import the user's module that defines a thing.

        Args:
            address: MODULE:NAME, as my_module:MyAgent.

        Returns:
            The thing's key.

        Raises:
            InputError: if there is no such module or name, or something else under it.
        """
        module, _, name = address.partition(":")
        if not is_address(address):
            raise InputError(f"{self._flag}: got {address!r}, expected a key or MODULE:NAME")
        return self._take(vars(import_own(module, self._flag)).get(name), address)

    def key_of(self, address: str) -> str | None:
        """The key of what was registered from MODULE:NAME; None where nothing was."""
        return next((key for key, (_, where) in self._sources.items() if where == address), None)

    def _take(self, found: Any, address: str) -> str:
        for key, (source, _) in self._sources.items():
            if source is found:
                return key
        if self._kind is None or not isinstance(found, self._kind):
            raise InputError(f"{self._flag}: {address} is no {self._what}; expected {self._expected}")
        name = address.partition(":")[2]
        self.add(name, found, found, address)
        return name

    def _load(self, plugin: importlib.metadata.EntryPoint) -> None:
        if self._kind is None:
            super()._load(plugin)
        else:
            self._take(plugin.load(), plugin.value)

    def __setitem__(self, key: str, thing: T) -> None:
        self._entries[key], self._sources[key] = thing, (thing, "chibit's")

    def __delitem__(self, key: str) -> None:
        del self._entries[key], self._sources[key]


def own_modules() -> list[str]:
    """Names of the user's modules in `OWN_MODULES`."""
    return [name for part in os.environ.get(OWN_MODULES, "").split(",") if (name := part.strip())]


def is_address(text: Any) -> bool:
    """Whether a text has the form MODULE:NAME."""
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


def address_of(defined: Any) -> str:
    """MODULE:NAME of a class or function of a user's module or a plugin; empty for the package's own."""
    own = defined.__module__.startswith("chibit.")
    return "" if own else f"{defined.__module__}:{defined.__qualname__}"


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
