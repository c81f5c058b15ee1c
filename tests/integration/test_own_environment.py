"""Environments of one's own, and of the extras: by id, factory and instance, by flags, in workers."""

import functools
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text

import chibit
from chibit.cli import main
from chibit.core.errors import InputError
from chibit.data.collect.behavior.rollout import Episode
from chibit.data.collect.minari_writer import write_minari
from chibit.data.environment import evaluate_in
from chibit.data.load import from_arrays
from chibit.data.readers.sandbox import own_ids
from chibit.environments.kinds import OwnEnvironment
from chibit.environments.make import make_env
from chibit.environments.own import receive_environments, send_environments, take_env
from chibit.environments.registry import ENVIRONMENTS
from chibit.evaluation.rollout import evaluate

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
FLAGS = ["--agent", "bc", "--num-steps", "4", "--num-episodes", "2", "--device", "cpu", "--quiet"]
ODD = ["--env-module", "my_odd", "--env-id"]
PLANT = """
import gymnasium as gym
from my_tank import Tank

class Plant(Tank):
    def step(self, action):
        *step, info = super().step(action)
        return *step, {"is_success": abs(self.level - 0.5) < 0.3}

gym.register("my/Plant-v0", entry_point="my_envs:Plant", max_episode_steps=7)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a user's modules; what is registered and imported is forgotten after a test."""
    shutil.copy(EXAMPLES / "my_tank.py", tmp_path)
    (tmp_path / "my_envs.py").write_text(PLANT)
    monkeypatch.setattr(ENVIRONMENTS, "_entries", dict(ENVIRONMENTS._all()))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setenv("CHIBIT_PLUGINS", "")
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    before = set(gym.registry)
    yield tmp_path
    for env_id in set(gym.registry) - before:
        if not str(gym.registry[env_id].entry_point).startswith(("gymnasium_robotics", "minigrid")):
            del gym.registry[env_id]  # libraries register theirs once
    for name in ("my_tank", "my_envs", "my_broken"):
        sys.modules.pop(name, None)


class Still:
    """Lets nothing in."""

    def reset(self, num_envs):
        self.shape = (num_envs, 1)

    def act(self, observations):
        assert observations.shape == self.shape
        return np.zeros(self.shape, np.float32)

    def observe(self, rewards, dones, actions=None):
        pass


def log(path="log.npz", **more):
    generator = np.random.default_rng(0)
    columns = {"observations": generator.uniform(size=(60, 1)), "actions": generator.uniform(0, 0.2, (60, 1))}
    columns |= {"rewards": np.ones(60), "terminations": np.arange(1, 61) % 20 == 0}
    np.savez(path, **columns, **more)
    return columns


def test_a_factory_an_instance_and_an_id_are_the_same_environment(folder):
    from my_tank import Tank

    gym.register("some/Tank-v1", entry_point=Tank, max_episode_steps=9)
    ways = {
        "factory": lambda: gym.wrappers.TimeLimit(Tank(), 9),
        "id": "some/Tank-v1",
        "made": gym.make("some/Tank-v1"),
        "copied": gym.wrappers.TimeLimit(Tank(), 9),
    }
    found = {name: evaluate(Still(), env, num_episodes=3, seed=4)[0] for name, env in ways.items()}
    returns = {one.episode_returns for one in found.values()}
    assert len(returns) == 1 and {one.episode_lengths for one in found.values()} == {(9, 9, 9)}


class Endless(gym.Env):
    """Ends by itself long after its policies' data, so that a missing limit is no hanging test."""

    observation_space, action_space = Box(-1, 1, (1,)), Box(0, 0.2, (1,))

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, self.steps == 1000, False, {}


@pytest.mark.parametrize(
    ("env", "given", "steps"),
    [
        (Endless, None, 20),
        (Endless, 30, 30),
        (lambda: gym.wrappers.TimeLimit(Endless(), 25), None, 25),
    ],
)
def test_a_policy_has_the_limit_of_its_data_where_an_environment_has_none(folder, env, given, steps):
    policy = chibit.fit(log(), "bc", steps=1, out="run", num_episodes=0).policy
    (found,) = chibit.evaluate(policy, env, num_episodes=2, max_episode_steps=given)
    assert (found.episode_lengths, policy.max_episode_steps) == ((steps, steps), 20)


def test_it_is_said_where_nobody_knows_a_limit(folder, caplog):
    assert evaluate(Still(), Endless, num_episodes=1)[0].episode_lengths == (1000,)
    assert "own/Endless-v0: neither environment nor policy has a limit of steps; give max" in caplog.text


def test_an_instance_with_settings_is_made_again_with_them(folder):
    env_id = take_env(gym.make("Pendulum-v1", g=5.0, max_episode_steps=11))
    built = make_env(env_id)
    assert built.unwrapped.g == 5.0
    assert take_env(gym.make("Pendulum-v1")) == "Pendulum-v1"


def test_an_id_stands_for_an_instance_with_its_limit_and_its_settings_alone(folder):
    def goal(*place):
        return {"goal": np.array(place)}

    gym.register("some/Goal-v0", entry_point=lambda goal: Endless(), kwargs=goal(1, 2), max_episode_steps=9)
    chibit.register_env("some/Goal-v0")
    assert take_env(gym.make("some/Goal-v0")) == "some/Goal-v0"
    assert take_env(gym.make("some/Goal-v0", **goal(1, 3))) != "some/Goal-v0"
    for limit, length in ((None, 9), (4, 4), (12, 12)):
        (played,) = evaluate(Still(), gym.make("some/Goal-v0", max_episode_steps=limit), num_episodes=1)
        assert played.episode_lengths == (length,)


def test_an_instance_of_make_env_is_made_again_as_that_made_it(folder):
    """With the wrappers that it adds, and the contacts that Gymnasium knows nothing of."""
    pytest.importorskip("minigrid")
    for env_id in ("MiniGrid-Empty-5x5-v0", "Hopper-v5"):
        assert take_env(make_env(env_id)) == env_id
    odd = take_env(make_env("MiniGrid-Empty-5x5-v0", render_mode="rgb_array"))
    assert make_env(odd).observation_space.shape == (151,) and make_env(odd).render_mode == "rgb_array"
    old = make_env("Hopper-v5", d4rl_physics=True)
    again = make_env(take_env(old))
    assert again.unwrapped.model.geom_margin.max() == old.unwrapped.model.geom_margin.max()


NAMES = """
import functools, sys
sys.path.insert(0, {folder!r})
from my_tank import Tank
import gymnasium as gym
from chibit.environments.own import take_env
{blank}
class Own(Tank):
    pass

def limited(length):
    return lambda: gym.wrappers.TimeLimit(Own(), length)

print(*map(take_env, (limited(3), limited(4), functools.partial(Tank), functools.partial(limited, 3), Own)))
"""


def test_what_has_no_name_is_named_by_its_content_whenever_a_program_runs(folder):
    runs = [
        subprocess.run([sys.executable, "-c", NAMES.format(folder=str(folder), blank=blank)],
                       capture_output=True, text=True, check=True).stdout.split()
        for blank in ("", "\n\n")
    ]  # fmt: skip
    assert runs[0] == runs[1] and len(set(runs[0])) == 5
    assert runs[0][-1] == "own/Own-v0" and runs[0][0].startswith("own/lambda_")


def test_of_two_without_a_name_each_keeps_its_own_place(folder):
    from my_tank import Tank

    ids = [take_env(lambda length=length: gym.wrappers.TimeLimit(Tank(), length)) for length in (3, 4)]
    ids += [take_env(functools.partial(gym.wrappers.TimeLimit, Tank(), length)) for length in (5, 6)]
    ids += [take_env(gym.make("Pendulum-v1", g=5.0, max_episode_steps=length)) for length in (7, 8)]
    for env_id, length in zip(ids[:4], (3, 4, 5, 6), strict=True):
        (played,) = evaluate(Still(), env_id, num_episodes=1)
        assert played.episode_lengths == (length,)
    assert len(set(ids)) == 6
    lock = threading.Lock()  # which nothing can write down
    assert take_env(lambda: lock and Tank()) != take_env(lambda: lock and Tank())


def test_training_evaluates_in_it_and_says_what_it_was(folder):
    from my_tank import Tank

    columns = log()
    event = []
    result = chibit.fit(
        columns, "bc", steps=4, evaluate_every=2, num_episodes=2, out="run",
        env=lambda: gym.wrappers.TimeLimit(Tank(), 6), on_evaluation=event.append,
    )  # fmt: skip
    assert event[0].evaluations[0].episode_lengths == (6, 6)
    record = json.loads(Path("run/provenance.json").read_text())
    assert record["dataset"]["env_id"] == record["physics"]["env_id"]
    assert record["physics"]["entry_point"].endswith("<lambda>")
    assert result.scores[0]["num_episodes_last"] == 2
    config = chibit.RunConfig(data=str(chibit.from_arrays(**columns).folder), agent="bc", num_steps=2)
    chibit.train(config, "other", env=gym.wrappers.TimeLimit(Tank(), 3), progress=False)
    assert json.loads(Path("other/evaluations.jsonl").read_text())["episode_lengths"] == [3] * 10


def test_the_command_line_takes_a_module_and_an_id(folder, capsys):
    log()
    own = ["--env-module", "my_envs", "--env-id", "my/Plant-v0"]
    assert main(["data", "inspect", "log.npz", *own]) == 0
    assert main(["train", "--data", "log.npz", "--out", "run", *FLAGS, *own]) == 0
    record = json.loads(Path("run/provenance.json").read_text())
    assert record["physics"]["entry_point"] == "my_envs:Plant" and record["plugins"] == "my_envs"
    evaluation = json.loads(Path("run/evaluations.jsonl").read_text().splitlines()[-1])
    assert evaluation["episode_lengths"] == [7, 7] and len(evaluation["successes"]) == 2
    rate = json.loads(Path("run/result.json").read_text())["scores"][0]["success_rate_last"]
    assert rate == np.mean(evaluation["successes"])
    capsys.readouterr()
    assert main(["evaluate", "run", "--env-module", "my_envs", "--num-episodes", "2"]) == 0
    assert "success" in capsys.readouterr().out
    assert main(["export", "run", "--env-module", "my_envs", "--out", "policy", "--no-video"]) == 0
    assert main(["report", "run", "--out", "page"]) == 0
    assert "Success rate" in Path("page/report.md").read_text()
    assert "Success rate" in Path("page/report.html").read_text()


class Parts(gym.Env):
    """Shows a nested dictionary, of whose parts some are discrete, and a text."""

    observation_space = Dict(
        {
            "z": Box(-1, 1, (2, 2), np.float64),
            "inner": Dict({"mode": Discrete(3, start=1), "bits": MultiBinary(2)}),
            "rooms": MultiDiscrete([2, 3], start=[0, 5]),
            "mission": Text(8),
        }
    )
    action_space = Discrete(3)

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, True, False, {}


def test_a_policy_takes_the_parts_that_its_environment_shows_where_data_are_vectors(folder):
    chibit.register_env("my/Parts-v0", Parts)
    space = gym.spaces.Dict({k: v for k, v in Parts.observation_space.items() if k != "mission"})
    seen = [Parts().reset(seed=seed)[0] for seed in range(20)]
    columns = {
        "observations": [gym.spaces.flatten(space, one) for one in seen],
        "actions": np.arange(20) % 3,
        "rewards": np.ones(20),
        "terminations": np.arange(20) % 5 == 4,
    }
    data = from_arrays(**columns)
    named = from_arrays(**columns, env_id="my/Parts-v0")
    for number, found in enumerate((named, evaluate_in(data, "my/Parts-v0"))):
        assert [part.width for part in found.spec.observation_parts] == [2, 3, 5, 4]
        assert data.spec.observation_parts == ()
        policy = chibit.fit(found, "discrete_bc", steps=1, num_episodes=0, out=folder / str(number)).policy
        policy.reset()
        action = policy.act(seen[7])
        policy.reset()
        assert action == policy.act(columns["observations"][7])


class Gears(gym.Env):
    """Rewards gear 3 of 1 to 3."""

    observation_space = Box(-1, 1, (1,))
    action_space = Discrete(3, start=1)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return np.zeros(1, np.float32), float(action == 3), True, False, {}


def test_actions_that_begin_at_one_are_played_as_they_are_read(folder, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    gym.register("my/Gears-v0", entry_point=f"{__name__}:Gears")
    chibit.register_env("my/Gears-v0")
    actions = np.array([1, 3, 2, 3])
    episodes = [
        Episode(None, np.zeros((2, 1)), actions[i : i + 1], (actions[i : i + 1] == 3) * 1.0, True, False)
        for i in range(4)
    ]
    write_minari(folder / "minari", "my/gears-v0", gym.make("my/Gears-v0"), iter(episodes), dict)
    data = chibit.load_dataset("my/gears-v0", progress=False)
    assert (data.actions.tolist(), data.spec.env_id) == ([0, 2, 1, 2], "my/Gears-v0")
    best = Still()
    best.act = lambda observations: np.full(len(observations), 2)
    assert evaluate(best, "my/Gears-v0", num_episodes=2)[0].episode_returns == (1.0, 1.0)


class Pictures(gym.Env):
    action_space = Discrete(2)

    def __init__(self, *shape, dtype=np.uint8):
        self.observation_space = Box(0, 255, shape, dtype)

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, True, False, {}


def test_pictures_are_played_where_an_environment_shows_them_gray(folder):
    columns = {
        "observations": np.random.default_rng(0).integers(0, 256, (20, 40, 44, 3), dtype=np.uint8),
        "actions": np.arange(20) % 2,
        "rewards": np.ones(20),
        "terminations": np.arange(20) % 5 == 4,
    }
    data = from_arrays(**columns)
    with pytest.raises(InputError, match=r"wrapped so that it shows gray pictures, uint8 of \(1, 40, 44\)"):
        chibit.fit(data, "discrete_bc", steps=1, out="run", env=lambda: Pictures(40, 44, 3))
    gray = chibit.fit(
        data, "discrete_bc", steps=1, batch_size=2, num_episodes=2, out="run", env=lambda: Pictures(1, 40, 44)
    )
    assert gray.scores[0]["mean_return_last"] == 1.0
    for number, (shape, dtype, shows) in enumerate(
        [((40, 44, 1), np.uint8, "pictures of shape"), ((1, 40, 44), np.float32, "1760 values")]
    ):
        other = functools.partial(Pictures, *shape, dtype=dtype)
        with pytest.raises(InputError, match=rf"pictures of shape \(1, 40, 44\), those of own.*{shows}"):
            chibit.fit(data, "discrete_bc", steps=1, out=f"other-{number}", env=other)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 2, 2), np.float32), ((2, 2, 2), np.uint8), ((8,), np.uint8)]
)
def test_what_is_no_picture_is_played_as_the_vectors_that_data_hold(shape, dtype):
    seen = np.random.default_rng(0).integers(0, 256, (20, 8)).astype(np.float32)
    data = from_arrays(seen, np.arange(20) % 2, np.ones(20), np.arange(20) % 5 == 4)
    kind = functools.partial(Pictures, *shape, dtype=dtype)
    fitted = chibit.fit(data, "discrete_bc", steps=1, num_episodes=2, out="run", env=kind)
    assert fitted.scores[0]["mean_return_last"] == 1.0
    played = []
    policy = Still()
    policy.act = lambda observations: played.append(observations) or np.zeros(len(observations), np.int64)
    evaluate(policy, kind, num_episodes=2)
    assert played[0].shape == (2, 8) and played[0].dtype == np.float32


def test_nothing_is_built_that_a_file_alone_names(folder, capsys):
    log(env_id="my/Plant-v0")
    sys.path.append(str(folder))
    import my_envs  # noqa: F401  registers with Gymnasium, and nobody has said that it may be played

    assert main(["train", "--data", "log.npz", "--out", "run", *FLAGS]) == 0
    assert json.loads(Path("run/provenance.json").read_text())["dataset"]["env_id"] is None
    record = json.loads(Path("run/config.json").read_text())
    record["config"]["env_id"] = "my/Plant-v0"
    Path("config.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert main(["train", "--config", "config.json", "--out", "other", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "'my/Plant-v0' is not one that can be built here; for one of yours name its module by" in said
    assert len(said) < 250  # not all ids
    assert main(["data", "inspect", "log.npz"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "for one of yours name its module by --env-module" in said and "--env-id names" not in said
    assert (
        main(["train", "--config", "config.json", "--out", "other", "--quiet", "--env-id", "my/Plant-v0"])
        == 0
    )


def unlearn(env_id):
    """As in a command without the module."""
    del ENVIRONMENTS[env_id], gym.registry[env_id]
    sys.modules.pop("my_envs", None)


@pytest.mark.parametrize("first", ["with", "without"])
def test_what_a_command_accepts_does_not_depend_on_an_earlier_one(folder, monkeypatch, first):
    log(env_id="my/Plant-v0")
    flags = {"with": ["--env-module", "my_envs"], "without": []}
    order = [first, *({*flags} - {first}), first]
    for number, word in enumerate(order):
        out = f"{word}-{number}"
        no_episodes = ["--agent", "bc", "--num-steps", "2", "--num-episodes", "0", "--quiet"]
        assert main(["train", "--data", "log.npz", "--out", out, *flags[word], *no_episodes]) == 0
        spec = json.loads(Path(f"{out}/provenance.json").read_text())["dataset"]
        known = {"env_id": "my/Plant-v0", "max_episode_steps": 7}
        assert {key: spec[key] for key in known} == (
            known if word == "with" else {"env_id": None, "max_episode_steps": 20}
        )
        if word == "with":
            monkeypatch.setenv("CHIBIT_PLUGINS", "")
            unlearn("my/Plant-v0")
    assert len(list((folder / "home" / "stores").iterdir())) == 2


def test_a_run_or_a_store_whose_environment_is_not_known_any_more(folder, monkeypatch, capsys):
    log(env_id="my/Plant-v0")
    run = ["train", "--data", "log.npz", "--out", "run", *FLAGS]
    assert main([*run, "--env-module", "my_envs"]) == 0
    assert main(["data", "convert", "log.npz", "--to", "store", "--out", "store"]) == 0
    monkeypatch.setenv("CHIBIT_PLUGINS", "")
    unlearn("my/Plant-v0")
    assert main(run) == 0
    said = capsys.readouterr().err
    assert "is finished, but its data cannot be compared: environment 'my/Plant-v0'" in said
    assert main([*run[:-7], "--num-steps", "6", *FLAGS[4:]]) == 2
    assert "'my/Plant-v0' is not one that can be built here" in capsys.readouterr().err
    assert main(["train", "--data", "store", "--out", "other", *FLAGS]) == 0
    assert not Path("other/evaluations.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--env-module", "no_module"], "--env-module: no_module cannot be imported (ModuleNotFoundError"),
        (["--env-module", "my_broken"], "--env-module: my_broken cannot be imported (ZeroDivisionError"),
        (["--env-id", "Nowhere-v0"], "'Nowhere-v0' is not one that can be built here"),
        (["--env-id", "Pendulum-v1"], "observations have 1 values, those of Pendulum-v1 have 3"),
        ([*ODD, "odd/Wide-v0"], "actions have 1 values, those of odd/Wide-v0 have 2"),
        ([*ODD, "odd/Words-v0"], "odd/Words-v0: observations are Text("),
        ([*ODD, "odd/Broken-v0"], "cannot be built (RuntimeError: no license)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(folder, capsys, flags, words):
    log()
    Path("my_broken.py").write_text("1 / 0")
    Path("my_odd.py").write_text(
        "import gymnasium as gym\nfrom my_tank import Tank\n"
        "class Wide(Tank):\n    action_space = gym.spaces.Box(0.0, 1.0, (2,))\n"
        "class Words(Tank):\n    observation_space = gym.spaces.Text(5)\n"
        "class Broken(Tank):\n    def __init__(self):\n        raise RuntimeError('no license')\n"
        "for kind in (Wide, Words, Broken):\n    gym.register(f'odd/{kind.__name__}-v0', entry_point=kind)\n"
    )
    sys.modules.pop("my_odd", None)
    assert main(["train", "--data", "log.npz", "--out", "run", *FLAGS, *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not Path("run").exists()


def test_an_instance_that_cannot_be_copied_and_what_is_none_are_refused(folder):
    from my_tank import Tank

    tank = Tank()
    tank.connection = (lambda: (yield))()  # a generator cannot be copied
    with pytest.raises(InputError, match=r"this Tank cannot be copied .* give what builds it"):
        evaluate(Still(), tank, num_episodes=1)
    with pytest.raises(InputError, match="env: got int, expected an id, an environment, or what builds one"):
        take_env(3)


def test_other_processes_are_told_of_them(folder, monkeypatch):
    from my_tank import Tank

    chibit.register_env("Silo-v0", lambda: Tank(), max_episode_steps=5, score_reference=(0.0, 5.0))
    sent = send_environments()
    monkeypatch.setattr(ENVIRONMENTS, "_entries", {})
    del gym.registry["Silo-v0"]
    receive_environments(sent)
    assert make_env("Silo-v0").spec.max_episode_steps == 5
    assert ENVIRONMENTS["Silo-v0"].score_reference == (0.0, 5.0) and "Silo-v0" in own_ids()
    gate = (lambda: (yield))()
    chibit.register_env("Gate-v0", lambda: gate)
    with pytest.raises(InputError, match=r"cannot be sent to other processes .* --env-module"):
        send_environments()


@pytest.mark.parametrize("engine", ["process", pytest.param("pool", marks=pytest.mark.slow)])
def test_a_study_plays_in_it_in_its_workers(folder, engine):
    log()
    command = ["study", "baselines", "--arms", "bc", "--data", "log.npz", "--seeds", "0", "--engine", engine]
    command += [
        "--env-module",
        "my_envs",
        "--env-id",
        "my/Plant-v0",
        "--num-steps",
        "4",
        "--num-episodes",
        "1",
    ]
    assert main([*command, "--root", "all"]) == 0
    (run,) = Path("all/baselines").glob("bc-*")
    assert json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])["episode_lengths"] == [7]


@pytest.mark.slow
def test_a_study_of_a_script_plays_in_what_the_script_registered(folder):
    from my_tank import Tank

    from chibit.sweep import run_all

    columns = log()
    env_id = take_env(lambda: gym.wrappers.TimeLimit(Tank(), 3))
    data = str(from_arrays(**columns).folder)
    config = chibit.RunConfig(data=data, agent="bc", env_id=env_id, num_steps=2, num_episodes=1)
    (outcome,) = run_all([config], root=Path("all"), study="mine", engine="pool", progress=False)
    assert outcome.status == "finished", outcome.message
    assert json.loads((outcome.path / "evaluations.jsonl").read_text())["episode_lengths"] == [3]


def demonstrations(env, dataset_id, choose, num_episodes, num_steps):
    """A Minari data set of episodes that are cut, in the folder of this test."""

    def episodes():
        for seed in range(num_episodes):
            observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
            for step in range(num_steps):
                actions.append(choose(seed, step))
                observation, reward, *_ = env.step(actions[-1])
                observations.append(observation)
                rewards.append(reward)
            yield Episode(seed, np.array(observations), np.array(actions), np.array(rewards), False, True)

    return write_minari(Path("minari"), dataset_id, env, episodes(), dict)


def test_minari_data_that_name_a_registered_environment_are_evaluated_in_it(folder):
    gym.register("my/Silo-v0", entry_point="my_tank:Tank", max_episode_steps=4)
    env = gym.make("my/Silo-v0")
    env.action_space.seed(0)
    data = demonstrations(env, "my/silo-v0", lambda seed, step: env.action_space.sample(), 3, 4)
    assert chibit.load_dataset(data, cache="first", progress=False).spec.env_id is None
    chibit.register_env("my/Silo-v0")
    assert chibit.load_dataset(data, cache="second", progress=False).spec.env_id == "my/Silo-v0"


@pytest.mark.slow
def test_a_policy_fine_tuned_on_door_demonstrations_runs_in_the_door(folder, capsys):
    """The layout of Minari's D4RL/door/human-v2: 25 demonstrations of the hand, 39 numbers and 28 actions."""
    pytest.importorskip("gymnasium_robotics")
    make_env("AdroitHandDoor-v1")  # Gymnasium knows it from now on
    env = gym.make("AdroitHandDoor-v1")

    def reach(seed, step):
        phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 28)
        return (0.5 * np.sin(0.05 * step + phases)).astype(np.float32)

    data = demonstrations(env, "D4RL/door/human-v2", reach, 25, 60)
    few = ["--num-steps", "12", "--evaluate-every", "6", "--num-episodes", "2", "--device", "cpu", "--quiet"]
    assert main(["train", "--data", str(data), "--initializer", "chibit", "--out", "run", *few]) == 0
    spec = json.loads(Path("run/provenance.json").read_text())["dataset"]
    assert (spec["name"], spec["env_id"]) == ("D4RL/door/human-v2", "AdroitHandDoor-v1")
    assert (spec["state_dim"], spec["act_dim"], spec["max_episode_steps"]) == (39, 28, 200)
    assert main(["export", "run", "--out", "policy", "--no-video"]) == 0
    policy = chibit.Policy.from_pretrained("policy")
    (found,) = chibit.evaluate(policy, "AdroitHandDoor-v1", num_episodes=2, seed=1)
    assert found.episode_lengths == (200, 200) and found.failed_episodes == ()
    assert np.isfinite(found.episode_returns).all() and found.summary.success_rate is not None
    assert main(["evaluate", "run", "--num-episodes", "1"]) == 0
    assert "success" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("env_id", "size", "says"),
    [
        ("PointMaze_UMaze-v3", 6, True),
        ("AntMaze_UMaze-v4", 31, True),
        ("AdroitHandDoor-v1", 39, True),
        ("FetchReach-v4", 16, True),
        ("FrankaKitchen-v1", 93, False),
        ("MiniGrid-Empty-5x5-v0", 151, True),
    ],
)
def test_environments_of_the_extras_are_played_in_and_say_whether_they_were_solved(env_id, size, says):
    pytest.importorskip("minigrid" if env_id.startswith("Mini") else "gymnasium_robotics")
    env = make_env(env_id)
    sample = env.action_space.sample()

    class Same(Still):
        def reset(self, num_envs):
            self.shape = (num_envs, size)
            self.action = np.stack([sample] * num_envs)

        def act(self, observations):
            assert observations.shape == self.shape and observations.dtype == np.float32
            return self.action

    (found,) = evaluate(Same(), env_id, num_episodes=1, max_episode_steps=3)
    assert found.episode_lengths == (3,) and found.failed_episodes == ()
    assert (found.summary.success_rate is not None) == says
    assert chibit.environments.make.physics_record(env_id, False)["env_id"] == env_id


@pytest.mark.parametrize(
    ("env_id", "names"),
    [
        ("AntMaze_UMaze-v5", ("achieved_goal", "desired_goal", "observation")),
        ("PointMaze_UMaze-v3", ("desired_goal", "observation")),  # whose place is in its observation
    ],
)
def test_the_parts_of_a_goal_observation_stand_in_alphabetical_order(env_id, names):
    pytest.importorskip("gymnasium_robotics")
    flat, _ = make_env(env_id).reset(seed=3)
    parts, _ = gym.make(env_id).reset(seed=3)
    np.testing.assert_array_equal(flat, np.concatenate([parts[name] for name in names]))


def test_an_episode_is_solved_where_any_of_its_steps_was(folder):
    class Once(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Box(-1, 1, (1,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.steps, self.good = 0, self.np_random.uniform() < 0.5
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.steps += 1
            return (
                np.zeros(1, np.float32),
                0.0,
                False,
                self.steps == 3,
                {"success": self.good and self.steps == 2},
            )

    (found,) = evaluate(Still(), Once, num_episodes=20)
    assert (
        found.summary.success_rate == pytest.approx(np.mean(found.successes))
        and 0 < sum(found.successes) < 20
    )
    assert "success" in str(found.summary)


def test_without_the_extra_its_ids_are_not_known_and_say_so(monkeypatch, folder):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"'AdroitHandDoor-v1' needs the extra robotics: pip install"):
        make_env("AdroitHandDoor-v1")
    log(env_id="MiniGrid-Empty-5x5-v0")
    dataset = chibit.load_dataset("log.npz", progress=False)
    assert dataset.spec.env_id is None and any("pip install 'chibit[minigrid]'" in n for n in dataset.notes)


def test_a_version_that_a_library_does_not_have_leaves_data_without_environment(folder):
    pytest.importorskip("gymnasium_robotics")
    log(env_id="AdroitHandDoor-v77")
    dataset = chibit.load_dataset("log.npz", progress=False)
    assert dataset.spec.env_id is None and any("AdroitHandDoor-v77" in note for note in dataset.notes)
    assert not isinstance(ENVIRONMENTS["AdroitHandDoor-v77"], OwnEnvironment)
    gym.register("AdroitHandDoor-v77", entry_point=Endless)  # as a newer version of it would
    assert chibit.load_dataset("log.npz", progress=False).spec.env_id == "AdroitHandDoor-v77"
