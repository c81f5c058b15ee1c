"""Films for the gallery of the docs: the shipped behavior policies at two levels, as animated WebP.

    python scripts/make_gallery.py docs/images

Needs the extra `video` and an OpenGL without a display (EGL or OSMesa), as `chibit evaluate --video` does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio.v3 as iio
import numpy as np

from chibit.data.collect.behavior.ladder import BehaviorPolicy, load_ladder
from chibit.environments.registry import OWN_IDS
from chibit.evaluation.video import record_video

SECONDS, EVERY = 4.0, 2
"""Length of a film, and how many pictures of the video one of the film stands for."""


class Mean:
    """A behavior policy without its noise."""

    def __init__(self, policy: BehaviorPolicy) -> None:
        self._policy = policy

    def reset(self, num_envs: int) -> None:
        """Nothing is remembered."""

    def act(self, observations: np.ndarray) -> np.ndarray:
        """The mean action, in its bounds."""
        return self._policy.mean(observations).clip(-1.0, 1.0).astype(np.float32)

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Nothing is remembered."""


def main(out: Path) -> None:
    """Write <environment>-<level>.webp for all of them."""
    with TemporaryDirectory() as folder:
        for name, env_id in OWN_IDS.items():
            ladder = load_ladder(name)
            for level, policy in (("medium", ladder.medium), ("expert", ladder.expert)):
                video = Path(folder) / f"{name}-{level}.mp4"
                record_video(Mean(policy), env_id, video, max_seconds=SECONDS, d4rl_physics=True)
                pictures = iio.imread(video, plugin="FFMPEG")[::EVERY]
                duration = round(1000 * SECONDS / len(pictures))
                iio.imwrite(out / f"{video.stem}.webp", pictures, duration=duration, loop=0, quality=50)
                print(f"{video.stem}: {len(pictures)} pictures")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
