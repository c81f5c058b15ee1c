"""Environments that a user names: by an id of Gymnasium's, a factory, an instance, or their module.

That is the user's word. What files name is never taken in here; it must be in the registry already.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import io
import os
import re
import types
from collections.abc import Callable
from typing import Any, TypeAlias

import cloudpickle
import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from chibit.core.errors import InputError, first_line
from chibit.core.plugins import OWN_MODULES, import_own, own_modules
from chibit.core.targets import environment_name
from chibit.environments.kinds import OwnEnvironment
from chibit.environments.make import make_env
from chibit.environments.registry import (
    ENVIRONMENTS,
    find_environment,
    own_ids,
    register,
    register_env,
)

EnvLike: TypeAlias = str | Callable[..., gym.Env] | gym.Env
"""An id, what builds an environment, or one of the kind that is meant."""


def take_env(env: EnvLike) -> str:
    """Take a user's word for an environment.

    Args:
        env: an id of the registry, or of anything that is registered with Gymnasium in this process; a class
            or function that builds one; or an instance, of which others are made as it was made, or copied.
            It is not played itself.

    Returns:
        Its id, under which it can be built from now on.

    Raises:
        InputError: if there is no such environment, or no other one can be made of an instance.
    """
    if isinstance(env, str):
        if env not in ENVIRONMENTS and env in gym.registry:
            register(OwnEnvironment(name=environment_name(env), ids=(env,)))
        find_environment(env)
        return env
    if isinstance(env, gym.Env):
        spec = env.spec
        has_margins = _has_larger_margins(env)
        if spec is not None and spec.id in ENVIRONMENTS and _is_plain(spec) and not has_margins:
            return spec.id
        kind = type(env.unwrapped)
        make: Callable[..., gym.Env] = functools.partial(_another, env)
        return _register(_name(kind, spec, "_d4rl" * has_margins), functools.wraps(kind, updated=())(make))
    if callable(env):
        return _register(_name(env), env)
    raise InputError(f"env: got {type(env).__name__}, expected an id, an environment, or what builds one")


def import_environments(module: str, flag: str) -> None:
    """Import a user's module of environments, here and in every process that is started from here.

    Args:
        module: its name; what it registers with Gymnasium may be named by data, too.
        flag: what named it, for the message.

    Raises:
        InputError: if it cannot be imported.
    """
    before = set(gym.registry)
    import_own(module, flag)
    for env_id in sorted(set(gym.registry) - before - ENVIRONMENTS.keys()):
        take_env(env_id)
    os.environ[OWN_MODULES] = ",".join(dict.fromkeys([*own_modules(), module]))


def send_environments() -> bytes:
    """What another process needs to know the user's environments by `receive_environments`.

    Raises:
        InputError: for one whose code cannot be sent.
    """
    rows = [(ENVIRONMENTS[env_id], gym.registry.get(env_id)) for env_id in own_ids()]
    try:
        sent: bytes = cloudpickle.dumps(rows)
    except Exception as error:
        raise InputError(
            f"env: your environments cannot be sent to other processes ({first_line(error)}); register them "
            f"in a module, and name it by --env-module or in {OWN_MODULES}"
        ) from error
    return sent


def receive_environments(sent: bytes) -> None:
    """Take in what `send_environments` of the process that started this one has given."""
    for row, spec in cloudpickle.loads(sent):
        register(row)
        if spec is not None:
            gym.registry[spec.id] = spec


def _register(env_id: str, make: Callable[..., gym.Env]) -> str:
    register_env(env_id, make)
    return env_id


def _name(make: Any, spec: EnvSpec | None = None, more: str = "") -> str:
    """An id for what builds an environment, the same whenever a program runs.

    A class and a function of a module have a name of their own. Two lambdas have not, nor have functions
    within functions, partial ones and what Gymnasium makes with other settings: of those the content is
    part of the id, so that none takes another's place or results.
    """
    name = re.sub(r"\W", "", getattr(make, "__name__", type(make).__name__))
    has_name = isinstance(make, type) or "<" not in getattr(make, "__qualname__", "<")
    if spec is not None or not has_name:
        name += f"_{_content(make if spec is None else spec)}"
    return f"own/{name}{more}-v0"


def _content(thing: Any) -> str:
    """Eight digits of what a thing holds; of what cannot be written down, its place in memory."""
    written = io.BytesIO()
    try:
        _ContentPickler(written).dump(thing)
    except Exception:  # whatever an object that cannot be sent raises
        return f"{id(thing):x}"
    return hashlib.sha256(written.getvalue()).hexdigest()[:8]


class _ContentPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes code without its place in a file and classes by name, which cloudpickle numbers at random."""

    def persistent_id(self, thing: Any) -> Any:
        if isinstance(thing, types.CodeType):
            return thing.co_code, thing.co_consts, thing.co_names
        return (thing.__module__, thing.__qualname__) if isinstance(thing, type) else None


def _is_plain(spec: EnvSpec) -> bool:
    """Whether an id alone makes such an environment, by Gymnasium or by `make_env`."""
    usual = gym.spec(spec.id)
    if spec.additional_wrappers:
        with contextlib.closing(make_env(spec.id)) as env:
            usual = env.spec or usual
    own, usually = (_content((s.kwargs, s.max_episode_steps, s.additional_wrappers)) for s in (spec, usual))
    return own == usually


def _has_larger_margins(env: gym.Env) -> bool:
    """Whether `make_env` has built it with the contacts of D4RL, of which Gymnasium knows nothing."""
    return bool(getattr(env.unwrapped, "has_larger_margins", False))


def _another(env: gym.Env, **options: Any) -> gym.Env:
    """Make an environment like one, as it was made, else a copy."""
    if env.spec is not None and env.spec.id in gym.registry:
        made = gym.make(env.spec, **options)
        if _has_larger_margins(env):
            from chibit.environments.mujoco import take_larger_margins

            take_larger_margins(made)
        return made
    try:
        return copy.deepcopy(env)
    except Exception as error:
        raise InputError(
            f"env: this {type(env).__name__} cannot be copied ({first_line(error)}); give what builds it: "
            "env=lambda: ..."
        ) from error
