"""A short video of a policy at work, rendered without a display.

MuJoCo draws through OpenGL: EGL or OSMesa where there is no screen. Whether one of them works depends on
system libraries and can end a process, so it is tried in another process first.
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from chibit.agents.base import Policy
from chibit.core.errors import InputError, ResourceError, first_line
from chibit.core.files import make_folder, replacing
from chibit.environments.make import make_env
from chibit.environments.registry import find_environment
from chibit.evaluation.rollout import rollout

_PROBE = "import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 16, 16).render()"
_PROBE_SECONDS = 30.0
_MAX_FPS = 25.0
_SIZE = 240  # width and height of MuJoCo's pictures; a multiple of 16, which encoders want
_LINE_HEIGHT, _LETTER_WIDTH = 16, 7  # pixels of a caption


@dataclass(frozen=True, kw_only=True)
class Video:
    """What was filmed."""

    path: Path
    """The mp4 file."""
    frames: int
    """Pictures in it."""
    steps: int
    """Environment steps they cover."""
    raw_return: float
    """Sum of the raw rewards of those steps."""


def require_renderer(env_id: str = "Hopper-v5") -> None:
    """Refuse, in a line that names what to install, where `record_video` cannot work.

    Raises:
        InputError: if a Python package is missing.
    """
    renderer = find_environment(env_id).renderer
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise InputError("video: needs the extra video; pip install 'chibit[video]'")
    if renderer == "pygame" and importlib.util.find_spec("pygame") is None:
        raise InputError(f"video: {env_id} is drawn by pygame; pip install pygame")
    if renderer == "mujoco" and _working_backend(os.environ.get("MUJOCO_GL", "")) is None:
        raise ResourceError(
            "video: MuJoCo finds no OpenGL without a display; install libegl1 libegl-mesa0 libgl1-mesa-dri, "
            "or libosmesa6 (apt-get install), or go without video"
        )


def record_video(
    policy: Policy,
    env_id: str,
    path: Path,
    *,
    seed: int = 0,
    d4rl_physics: bool = False,
    max_seconds: float = 8.0,
) -> Video:
    """Film one episode, or its beginning, at the speed of real time.

    Args:
        policy: made for one target return.
        env_id: an id from `chibit.environments.registry.ENVIRONMENTS`.
        path: mp4 file to write; its folder is created.
        seed: seed of the environment.
        d4rl_physics: contact margins as before MuJoCo 3.5.
        max_seconds: longest video, in seconds of the environment's time.

    Raises:
        InputError: for a number out of range, or a missing package.
        ResourceError: where nothing draws, or a picture cannot be drawn or written; there is no file then.
    """
    if not max_seconds > 0:
        raise InputError(f"video: {max_seconds} seconds, expected more than 0")
    require_renderer(env_id)
    _use_working_backend()
    make_folder(path.parent)
    with replacing(path) as temporary:
        filmed = _Filmed(env_id, temporary, d4rl_physics=d4rl_physics, max_seconds=max_seconds)
        try:
            (episode,) = rollout(policy, [filmed], [seed])
            filmed.finish()
        finally:
            filmed.close()
    return Video(path=path, frames=filmed.frames, steps=episode.length, raw_return=episode.raw_return)


class _Filmed(gym.Wrapper):
    """Writes a picture of every n-th state to a video, n such that at most 25 pictures make a second."""

    def __init__(self, env_id: str, path: Path, *, d4rl_physics: bool, max_seconds: float) -> None:
        steps_per_second = _steps_per_second(env_id)
        super().__init__(
            make_env(
                env_id,
                d4rl_physics=d4rl_physics,
                render_mode="rgb_array",
                max_episode_steps=_shortest(env_id, max_seconds * steps_per_second),
            )
        )
        self._every = max(1, math.ceil(steps_per_second / _MAX_FPS))
        self._fps = steps_per_second / self._every
        self._path = path
        self._writer: Generator[None, Any, None] | None = None
        self._steps = 0
        self._caption: str | None = None
        self.frames = 0
        if find_environment(env_id).renderer == "mujoco":
            _draw_quickly(self.env.unwrapped)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        result = self.env.reset(**options)
        self._caption = result[1].get("mission")
        self._take_picture()
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        self._steps += 1
        if self._steps % self._every == 0:
            self._take_picture()
        return result

    def finish(self) -> None:
        """Complete the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        self.finish()
        super().close()

    def _take_picture(self) -> None:
        try:
            picture = np.asarray(self.env.render())
            if self._caption is not None:
                picture = captioned(picture, self._caption)
            picture = np.ascontiguousarray(picture)
            if self._writer is None:
                self._writer = _open_writer(self._path, picture.shape[1::-1], self._fps)
            self._writer.send(picture)
        except Exception as error:  # of OpenGL or ffmpeg; the rollout would take it for the simulation's
            raise ResourceError(
                f"video: picture {self.frames} cannot be made ({first_line(error)})"
            ) from error
        self.frames += 1


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """A picture (H, W, 3) uint8 over a band that says what is to be done, (H + 16n, W, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    width = picture.shape[1]
    lines = textwrap.wrap(f"“{text}”", max(8, width // _LETTER_WIDTH)) or [""]
    band = Image.new("RGB", (width, _LINE_HEIGHT * len(lines)), "white")
    font = ImageFont.load_default(_LINE_HEIGHT - 4)
    for place, line in enumerate(lines):
        ImageDraw.Draw(band).text((4, place * _LINE_HEIGHT), line, fill="black", font=font)
    return np.concatenate([picture, np.asarray(band, np.uint8)])


def _open_writer(path: Path, size: tuple[int, ...], fps: float) -> Generator[None, Any, None]:
    from imageio_ffmpeg import write_frames

    writer: Generator[None, Any, None] = write_frames(
        str(path), size, fps=fps, quality=6, macro_block_size=2, ffmpeg_log_level="error",
        output_params=["-movflags", "+faststart"],  # browsers then play it while it loads
    )  # fmt: skip
    writer.send(None)
    return writer


def _steps_per_second(env_id: str) -> float:
    env = make_env(env_id)
    env.close()
    return float(env.metadata.get("render_fps", _MAX_FPS))


def _shortest(env_id: str, steps: float) -> int:
    limit = find_environment(env_id).time_limit(env_id)
    return max(1, min(int(steps), limit or int(steps)))


def _draw_quickly(env: Any) -> None:
    """Small pictures without shadows and reflections: a sixth of the time where the processor draws them.

    From the model's own camera that follows the body; Gymnasium from 1.4 on draws from one that stays.
    """
    import mujoco

    track = mujoco.mj_name2id(env.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if track >= 0:
        env.mujoco_renderer.camera_id = track
    env.mujoco_renderer.width = env.mujoco_renderer.height = _SIZE
    env.model.light_castshadow[:] = 0
    env.model.mat_reflectance[:] = 0


def _use_working_backend() -> None:
    # Gymnasium asks for it when the first picture is drawn.
    backend = _working_backend(os.environ.get("MUJOCO_GL", ""))
    if backend:
        os.environ["MUJOCO_GL"] = backend


@cache
def _working_backend(wanted: str) -> str | None:
    """The first way to draw that works in a process of its own; only `wanted` is tried where it is set."""
    headless = ["egl", "osmesa"] if sys.platform == "linux" else ["glfw"]
    for backend in [wanted] if wanted else headless:
        environment = {**os.environ, "MUJOCO_GL": backend}
        try:
            probe = subprocess.run(
                [sys.executable, "-c", _PROBE], env=environment, capture_output=True, timeout=_PROBE_SECONDS
            )
        except subprocess.TimeoutExpired:
            continue
        if probe.returncode == 0:
            return backend
    return None
