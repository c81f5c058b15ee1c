"""Videos: real pictures where a renderer is there, a one-line refusal where none is."""

from __future__ import annotations

import importlib.util
import subprocess

import gymnasium as gym
import numpy as np
import pytest

from chibit.core.errors import InputError, ResourceError
from chibit.environments.make import make_env
from chibit.evaluation import video
from chibit.evaluation.video import record_video, require_renderer


class Swinging:
    """Moves every joint to and fro."""

    def __init__(self, act_dim: int) -> None:
        self.act_dim = act_dim

    def reset(self, num_envs: int) -> None:
        self.t = 0

    def act(self, observations: np.ndarray) -> np.ndarray:
        return np.full((1, self.act_dim), 0.8 * np.sin(self.t), np.float32)

    def observe(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        self.t += 1


def decode(path):
    """Pictures of a video, and what ffmpeg says of it."""
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, 240, 240, 3), done.stderr.decode()


@pytest.fixture
def renderer():
    try:
        require_renderer()
    except (InputError, ResourceError):
        pytest.skip("nothing draws without a display here: no EGL, no OSMesa, or no imageio-ffmpeg")


@pytest.fixture
def fresh_probe():
    video._working_backend.cache_clear()
    yield
    video._working_backend.cache_clear()


def test_a_real_video_of_halfcheetah(renderer, tmp_path):
    made = record_video(Swinging(6), "HalfCheetah-v5", tmp_path / "videos" / "run.mp4", max_seconds=1.0)
    assert (made.steps, made.frames) == (20, 21)
    assert np.isfinite(made.raw_return)
    assert made.path.stat().st_size < 1_000_000
    assert [p.name for p in made.path.parent.iterdir()] == ["run.mp4"]
    pictures, log = decode(made.path)
    assert pictures.shape == (21, 240, 240, 3)
    assert "h264" in log and "20 fps" in log
    assert pictures[0].std() > 20  # not blank
    assert np.abs(pictures[0].astype(int) - pictures[-1]).mean() > 2  # it moves


class Fading(gym.Wrapper):
    """Loses its renderer after a few pictures."""

    left = 3

    def render(self):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("OpenGL is gone\nmore")
        return self.env.render()


def test_a_picture_that_cannot_be_drawn_is_said_and_leaves_no_file(renderer, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "make_env", lambda *args, **kwargs: Fading(make_env(*args, **kwargs)))
    with pytest.raises(ResourceError, match=r"^video: picture 3 cannot be made \(OpenGL is gone\)$"):
        record_video(Swinging(6), "HalfCheetah-v5", tmp_path / "run.mp4", max_seconds=1.0)
    assert list(tmp_path.iterdir()) == []


def test_the_camera_follows_the_body(renderer, monkeypatch):
    monkeypatch.setattr(video, "_SIZE", 64)
    env = make_env("Hopper-v5", render_mode="rgb_array").unwrapped
    video._use_working_backend()
    video._draw_quickly(env)
    env.reset(seed=0)
    here = env.render()
    env.set_state(env.data.qpos + np.array([8.0, 0, 0, 0, 0, 0]), env.data.qvel)
    leg = np.s_[22:32, 31:34]  # before the sky
    assert np.abs(here[leg].astype(int) - env.render()[leg]).mean() < 2


def test_fast_environments_are_thinned_to_25_pictures_a_second(renderer, tmp_path):
    made = record_video(Swinging(3), "Hopper-v4", tmp_path / "a.mp4", max_seconds=0.2, d4rl_physics=True)
    assert (made.steps, made.frames) == (25, 6)


def test_no_opengl_is_refused_with_what_to_install(fresh_probe, monkeypatch, tmp_path):
    monkeypatch.setenv("MUJOCO_GL", "nonesuch")
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        pytest.skip("imageio-ffmpeg is not installed")
    with pytest.raises(ResourceError, match="libegl1 libegl-mesa0 libgl1-mesa-dri") as refusal:
        record_video(Swinging(3), "Hopper-v5", tmp_path / "a.mp4")
    assert refusal.value.exit_code == 4 and "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("missing", "env_id", "said"),
    [
        ("imageio_ffmpeg", "Hopper-v5", r"pip install 'chibit\[video\]'"),
        ("pygame", "CartPole-v1", "pip install pygame"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, missing, env_id, said):
    found = importlib.util.find_spec
    everything_else = object()
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else found(name) or everything_else
    )
    with pytest.raises(InputError, match=said):
        require_renderer(env_id)


def test_a_file_that_cannot_be_written_is_refused(renderer, tmp_path):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(InputError, match=r"a\.mp4: is a folder, expected a regular file"):
        record_video(Swinging(3), "Hopper-v5", tmp_path / "a.mp4", max_seconds=0.1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("bad", [{"max_seconds": 0.0}, {"env_id": "Hoper-v5"}])
def test_bad_calls_are_refused(bad, tmp_path):
    with pytest.raises(InputError):
        record_video(Swinging(3), **{"env_id": "Hopper-v5", "path": tmp_path / "a.mp4", **bad})
    assert list(tmp_path.iterdir()) == []
