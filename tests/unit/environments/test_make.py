"""Environments: allow-list, time limits, and the physics that D4RL was made with."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.environments.make import make_env, physics_record
from chibit.environments.registry import ENVIRONMENTS
from chibit.environments.spaces import Spaces

FIXTURE = Path(__file__).parents[2] / "golden" / "hopper_physics.npz"
ADDS_MARGINS = tuple(int(part) for part in mujoco.__version__.split(".")[:2]) >= (3, 5)


def replay(env_id: str, d4rl_physics: bool) -> float:
    """Return the largest difference to the stored observations of MuJoCo 3.4.0."""
    with np.load(FIXTURE) as fixture:
        key = env_id.replace("-", "_")
        stored = {n: fixture[f"{key}_{n}"] for n in ("qpos", "qvel", "actions", "observations")}
    env = make_env(env_id, d4rl_physics=d4rl_physics).unwrapped
    env.reset(seed=0)
    env.set_state(stored["qpos"], stored["qvel"])
    observations = np.stack([env.step(action)[0] for action in stored["actions"]])
    return float(np.abs(observations - stored["observations"]).max())


@pytest.mark.parametrize("env_id", ["Hopper-v4", "Hopper-v5"])
def test_d4rl_physics_repeats_trajectories_of_mujoco_before_3_5(env_id: str) -> None:
    assert replay(env_id, d4rl_physics=True) < 1e-9


@pytest.mark.skipif(not ADDS_MARGINS, reason="MuJoCo before 3.5 has the old physics anyway")
@pytest.mark.parametrize("env_id", ["Hopper-v4", "Hopper-v5"])
def test_physics_differs_without_the_margin_fix(env_id: str) -> None:
    assert replay(env_id, d4rl_physics=False) > 1e-3


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Walker2d-v5"])
def test_d4rl_physics_changes_nothing_in_models_without_margin(env_id: str) -> None:
    finals = []
    for d4rl_physics in (False, True):
        env = make_env(env_id, d4rl_physics=d4rl_physics)
        env.reset(seed=3)
        env.action_space.seed(3)
        finals.append(np.stack([env.step(env.action_space.sample())[0] for _ in range(20)]))
    np.testing.assert_array_equal(finals[0], finals[1])


def test_physics_record_names_the_margin_rule() -> None:
    assert physics_record("Hopper-v5", True)["contact_margin"] == "max"
    assert physics_record("Hopper-v5", False)["contact_margin"] == ("sum" if ADDS_MARGINS else "max")
    assert physics_record("Hopper-v5", True)["mujoco"] == mujoco.__version__
    assert "mujoco" not in physics_record("CartPole-v1", False)


@pytest.mark.parametrize(
    ("version", "adds"),
    [("2.3.7", False), ("3.4.0", False), ("3.5.0", True), ("3.10.1", True), ("4.0.0", True)],
)
def test_margin_rule_by_mujoco_version(version: str, adds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_env("Hopper-v5").unwrapped.model.geom_margin.copy()
    monkeypatch.setattr(mujoco, "__version__", version)
    fixed = make_env("Hopper-v5", d4rl_physics=True).unwrapped.model.geom_margin
    np.testing.assert_array_equal(fixed, plain * (0.5 if adds else 1.0))
    assert physics_record("Hopper-v5", False)["contact_margin"] == ("sum" if adds else "max")


def test_every_allowed_id_can_be_built() -> None:
    for env_id in sorted(ENVIRONMENTS.keys() - {"chibit/BabyAI-GoToDoor-held_out-v0"}):  # has no episodes
        env = make_env(env_id)
        env.reset(seed=0)
        env.close()


@pytest.mark.parametrize("given", ["hopper-v5", "Hopper-v3", "HalfCheeta-v4"])
def test_unknown_id_names_the_nearest(given: str) -> None:
    with pytest.raises(InputError, match=r"did you mean .*(Hopper-v5|HalfCheetah-v4)"):
        make_env(given)


@pytest.mark.parametrize("given", ["os:system", "chibit.environments.make:make_env", "module:Hopper-v5", ""])
def test_import_paths_are_refused(given: str) -> None:
    with pytest.raises(InputError, match="not one that can be built here"):
        make_env(given)


def test_time_limit_can_be_changed() -> None:
    env = make_env("HalfCheetah-v5", max_episode_steps=3)
    env.reset(seed=0)
    truncated = [env.step(env.action_space.sample())[3] for _ in range(3)]
    assert truncated == [False, False, True]


@pytest.mark.parametrize(
    ("env_id", "steps", "extra"),
    [
        ("Hopper-v5", 1_000, "gymnasium"),
        ("BreakoutNoFrameskip-v4", 27_000, "ale_py"),
        ("MiniGrid-Empty-5x5-v0", 100, "minigrid"),
        ("BabyAI-GoToLocal-v0", 64, "minigrid"),  # counted at a reset
        ("BabyAI-PutNextLocal-v0", 128, "minigrid"),
        ("BabyAI-PickupLoc-v0", 64, "minigrid"),
        ("BabyAI-KeyCorridorS3R1-v0", 270, "minigrid"),
        ("BabyAI-GoToSeqS5R2-v0", 400, "minigrid"),  # up to four ways: 100 steps each
        ("BabyAI-MiniBossLevel-v0", 800, "minigrid"),  # up to four actions, of two ways each
    ],
)
def test_an_environments_own_limit_is_known(env_id: str, steps: int, extra: str, capsys) -> None:
    pytest.importorskip(extra)
    with contextlib.closing(make_env(env_id)) as env:
        assert Spaces.of(env_id, env).max_episode_steps == steps
        assert capsys.readouterr().out == ""
        if extra == "minigrid":
            for seed in range(20):
                env.reset(seed=seed)
                assert env.unwrapped.max_steps <= steps


def test_an_environment_whose_library_lacks_a_file_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the mazes of wave function collapse are, in packages of MiniGrid without their pictures."""
    library = pytest.importorskip("minigrid")

    def reset(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory", "patterns/SimpleMaze.png")

    monkeypatch.setattr(library.minigrid_env.MiniGridEnv, "reset", reset)
    with pytest.raises(InputError, match="'MiniGrid-Empty-5x5-v0' cannot begin") as caught:
        ENVIRONMENTS["MiniGrid-Empty-5x5-v0"].time_limit("MiniGrid-Empty-5x5-v0")
    assert "\n" not in str(caught.value)


def test_half_cheetah_is_made_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_env("HalfCheetah-v5")
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_other_warnings_of_the_model_compiler_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    real = gym.make

    def make(*args: object, **kwargs: object) -> gym.Env:
        mujoco.get_mju_user_warning()("something else")
        return real(*args, **kwargs)

    monkeypatch.setattr(gym, "make", make)
    with pytest.warns(RuntimeWarning, match="something else"):
        make_env("Hopper-v5")
    assert mujoco.get_mju_user_warning() is None


def test_v4_is_made_without_deprecation_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_env("Hopper-v4")
