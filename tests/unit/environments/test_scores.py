"""Score references and the normalized score."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from chibit.environments.registry import D4RL_IDS, ENVIRONMENTS, GAMES, TASKS, find_game
from chibit.environments.scores import normalized_score, score_reference

D4RL = {name: ENVIRONMENTS[env_id].score_reference for name, env_id in D4RL_IDS.items()}
GAMER = {game.lower(): find_game(game).score_reference for game in GAMES}


def test_references_are_0_and_100() -> None:
    for reference in (*D4RL.values(), *GAMER.values()):
        assert normalized_score(reference[0], reference) == 0.0
        assert normalized_score(reference[1], reference) == pytest.approx(100.0)


def test_hand_computed_scores() -> None:
    # (1422.06 + 20.272305) / (3234.3 + 20.272305), the mean return of D4RL's hopper-medium-v2
    assert normalized_score(1422.06, D4RL["hopper"]) == pytest.approx(44.3171, abs=1e-3)
    assert normalized_score(4770.33, D4RL["halfcheetah"]) == pytest.approx(40.6794, abs=1e-3)
    np.testing.assert_allclose(normalized_score(np.array([1.7, 30.5, 16.1]), GAMER["breakout"]), [0, 100, 50])


@pytest.mark.parametrize(
    ("env_id", "key"),
    [
        ("Hopper-v5", "hopper"),
        ("HalfCheetah-v4", "halfcheetah"),
        ("Walker2d-v5", "walker2d"),
        ("Ant-v4", "ant"),
    ],
)
def test_lookup_of_locomotion(env_id: str, key: str) -> None:
    assert score_reference(env_id) == D4RL[key]


@pytest.mark.parametrize(
    ("env_id", "key"),
    [
        ("ALE/Breakout-v5", "breakout"),
        ("QbertNoFrameskip-v4", "qbert"),
        ("SeaquestNoFrameskip-v4", "seaquest"),
    ],
)
def test_lookup_of_atari(env_id: str, key: str) -> None:
    assert score_reference(env_id) == GAMER[key]


def test_every_allowed_environment_of_these_has_its_reference() -> None:
    known = {env_id for env_id in ENVIRONMENTS if score_reference(env_id) is not None}
    locomotion = {
        f"{name}-{v}" for name in ("Ant", "HalfCheetah", "Hopper", "Walker2d") for v in ("v4", "v5")
    }
    games = {env_id for env_id in ENVIRONMENTS if any(game in env_id.lower() for game in GAMER)}
    mazes = {f"PointMaze_{name}-v3" for name in ("UMaze", "Medium", "Large")}
    instructed = {env_id for env_id in ENVIRONMENTS if env_id.startswith("chibit/BabyAI-")}
    assert known == locomotion | games | {row.ids[0] for row in TASKS.values()} | mazes | instructed


@pytest.mark.parametrize(
    "name",
    [
        *("Reacher-v5", "CartPole-v1", "antmaze-umaze-v2", "hopperish", "", "D4RL/door/human-v2", None),
        *("hopper-tank", "hopper_line3", "Hopper", "my/hopper/data-v0", "Pong", "pong-wars", "xHopper-v4"),
        *("Hopper-v4x", "hopper-v4"),
    ],
)
def test_nothing_is_made_up_from_part_of_a_name(name: str | None) -> None:
    assert score_reference(name) is None


def test_scores_need_no_torch() -> None:
    code = "import sys, chibit.environments.scores; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
