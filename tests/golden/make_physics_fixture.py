"""Make `hopper_physics.npz`: short Hopper trajectories as MuJoCo 3.4.0 computes them.

    python -m venv mujoco34 && mujoco34/bin/pip install mujoco==3.4.0 gymnasium==1.4.0 imageio packaging
    mujoco34/bin/python tests/golden/make_physics_fixture.py

Every trajectory starts from a stored position and velocity and repeats stored actions, so that only the
physics is compared and no random generator.
"""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np

NUM_STEPS = 100


def main() -> None:
    arrays: dict[str, np.ndarray] = {"mujoco": np.array(mujoco.__version__)}
    for env_id in ("Hopper-v4", "Hopper-v5"):
        env = gym.make(env_id).unwrapped
        generator = np.random.default_rng(7)
        env.reset(seed=7)
        qpos = env.init_qpos + generator.uniform(-5e-3, 5e-3, env.model.nq)
        qvel = env.init_qvel + generator.uniform(-5e-3, 5e-3, env.model.nv)
        env.set_state(qpos, qvel)
        # Small actions keep the hopper on its foot, so that contacts matter at every step.
        actions = generator.uniform(-0.3, 0.3, (NUM_STEPS, 3)).astype(np.float32)
        steps = [env.step(action) for action in actions]
        key = env_id.replace("-", "_")
        arrays |= {
            f"{key}_qpos": qpos,
            f"{key}_qvel": qvel,
            f"{key}_actions": actions,
            f"{key}_observations": np.stack([step[0] for step in steps]),
            f"{key}_rewards": np.array([step[1] for step in steps]),
        }
    np.savez_compressed(Path(__file__).parent / "hopper_physics.npz", **arrays)


if __name__ == "__main__":
    main()
