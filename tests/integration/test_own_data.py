"""Environments and data formats of others: the examples of docs/extend.md, from outside of the package."""

import importlib
import json
import linecache
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from chibit import make_env
from chibit.cli import main
from chibit.core import plugins
from chibit.core.errors import DamagedFileError, InputError
from chibit.data.environment import evaluate_in
from chibit.data.load import from_arrays, load_dataset
from chibit.data.readers.base import FORMATS, Format
from chibit.data.resolve import readable_suffixes
from chibit.environments.registry import ENVIRONMENTS, register_env

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
FLAGS = ["--num-steps", "4", "--num-episodes", "2", "--batch-size", "4", "--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with the examples, in which what is registered and imported is forgotten after the test."""
    for name in ("my_tank.py", "my_dat.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    readable_suffixes()  # the package's own formats register themselves at the first look
    for registry in (ENVIRONMENTS, FORMATS):
        monkeypatch.setattr(registry, "_entries", dict(registry._all()))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    gym.registry.pop("Tank-v0", None)
    for name in ("my_tank", "my_dat", "my_odd"):
        sys.modules.pop(name, None)


def play(env, num_episodes=4):
    """Columns of episodes that always let the same in."""
    steps = []
    for seed in range(num_episodes):
        observation, _ = env.reset(seed=seed)
        is_over = False
        while not is_over:
            action = np.array([0.02 + 0.02 * seed], np.float32)
            following, reward, terminated, is_over, _ = env.step(action)
            steps.append((observation, action, reward, terminated, is_over))
            observation = following
    names = ("observations", "actions", "rewards", "terminations", "truncations")
    return dict(zip(names, map(np.array, zip(*steps, strict=True)), strict=True))


def test_an_environment_of_ones_own_is_trained_for_evaluated_in_and_scored(folder):
    import my_tank  # noqa: F401

    np.savez("log.npz", **play(make_env("Tank-v0")), env_id="Tank-v0")
    spec = load_dataset("log.npz", progress=False).spec
    assert (spec.env_id, spec.max_episode_steps, spec.default_target_returns) == ("Tank-v0", 20, (20.0, 15.0))
    assert (spec.action_low, spec.score_reference) == ((0.0,), (5.0, 20.0))
    assert main(["train", "--agent", "bc", "--data", "log.npz", "--out", "run", *FLAGS]) == 0
    last = json.loads(Path("run/evaluations.jsonl").read_text().splitlines()[-1])
    assert last["episode_lengths"] == [20, 20]
    assert last["normalized_score"] == pytest.approx(100 * (np.mean(last["episode_returns"]) - 5) / 15)
    assert main(["evaluate", "run", "--num-episodes", "1"]) == 0


def test_an_environment_that_was_defined_anew_is_seen_in_data_that_were_read_before(folder):
    import my_tank

    class Tank(my_tank.Tank):
        action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    columns = play(make_env("Tank-v0"))
    np.savez("log.npz", **columns, env_id="Tank-v0")

    def ways():
        arrays = from_arrays(**columns, env_id="Tank-v0")
        return [load_dataset("log.npz", progress=False), arrays, load_dataset(store)]

    store = load_dataset("log.npz", progress=False).folder
    before = ways()
    register_env("Tank-v0", Tank, max_episode_steps=30, score_reference=(0.0, 30.0))
    for dataset in (*ways(), evaluate_in(before[0], "Tank-v0")):
        spec = dataset.spec
        assert (spec.action_low, spec.action_high, spec.max_episode_steps) == ((-1.0,), (1.0,), 30)
        assert spec.score_reference == (0.0, 30.0)
        assert spec.default_target_returns[0] == dataset.episode_returns.max()
    register_env(
        "Tank-v0",
        my_tank.Tank,
        max_episode_steps=20,
        score_reference=(5.0, 20.0),
        target_returns=(20.0, 15.0),
    )
    assert [dataset.spec for dataset in ways()] == [dataset.spec for dataset in before]
    assert load_dataset("log.npz", progress=False).folder == store


def test_an_environment_with_an_unused_dimension_of_actions_is_trained_for(folder):
    import my_tank

    class Two(my_tank.Tank):
        action_space = gym.spaces.Box(np.float32([0.0, 0.0]), np.float32([0.2, 0.0]))

    columns = play(make_env("Tank-v0"))
    columns["actions"] = np.column_stack([columns["actions"], np.zeros(len(columns["actions"]))])
    register_env("Tank-v0", Two, max_episode_steps=20)
    np.savez("log.npz", **columns, env_id="Tank-v0")
    assert main(["train", "--agent", "bc", "--data", "log.npz", "--out", "run", *FLAGS]) == 0


def test_data_are_read_as_before_where_their_environment_cannot_be_built_any_more(folder):
    import my_tank  # noqa: F401

    np.savez("log.npz", **play(make_env("Tank-v0")), env_id="Tank-v0")
    before = load_dataset("log.npz", progress=False)
    register_env("Tank-v0", lambda: 1 / 0)
    assert load_dataset("log.npz", progress=False).spec == before.spec


def test_a_module_of_ones_own_is_known_to_every_command_and_process(folder):
    environment = os.environ | {"CHIBIT_PLUGINS": "my_tank,my_dat", "OMP_NUM_THREADS": "1"}
    code = (
        "from chibit import make_env; from chibit.data.readers.base import FORMATS;"
        "print(make_env('Tank-v0').unwrapped, FORMATS['dat'].suffixes)"
    )
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "Tank" in found.stdout and ".dat" in found.stdout, found.stderr


def test_a_module_that_cannot_be_imported_is_refused_and_an_installed_one_left_out(monkeypatch, caplog):
    registry = plugins.Registry("some.group")
    monkeypatch.setenv("CHIBIT_PLUGINS", "no_such_module")
    with pytest.raises(InputError, match="CHIBIT_PLUGINS: no_such_module cannot be imported"):
        registry.get("x")
    monkeypatch.delenv("CHIBIT_PLUGINS")
    entry = SimpleNamespace(module="gone", value="gone:Thing", load=lambda: 1 / 0)
    monkeypatch.setattr(plugins.importlib.metadata, "entry_points", lambda group: [entry])
    assert dict(plugins.Registry("some.group")) == {}
    assert "plugin gone:Thing is left out: division by zero" in caplog.text


def test_ids_of_the_package_are_not_taken_and_ones_own_are_defined_anew(folder):
    with pytest.raises(InputError, match=r"Hopper-v5 is chibit's own"):
        register_env("Hopper-v5", score_reference=(0.0, 1.0))
    with pytest.raises(
        InputError,
        match=r"'Tank-v0' is not one that .* name its module by --env-module, or in CHIBIT_PLUGINS",
    ):
        make_env("Tank-v0")
    with pytest.raises(InputError, match="score_reference"):
        register_env("Tank-v0", score_reference=(1.0, 1.0))
    import my_tank

    with pytest.raises(InputError, match=r"^register_env: Malformed environment ID: my tank\."):
        register_env("my tank", my_tank.Tank)
    assert "my tank" not in ENVIRONMENTS

    register_env("Tank-v0", my_tank.Tank, max_episode_steps=3)
    assert make_env("Tank-v0").spec.max_episode_steps == 3
    assert ENVIRONMENTS["Tank-v0"].score_reference is None


def test_actions_that_no_policy_chooses_are_refused(folder):
    import my_tank

    class Odd(my_tank.Tank):
        action_space = gym.spaces.MultiDiscrete([2, 3])

    register_env("Tank-v0", Odd, max_episode_steps=3)
    np.savez("log.npz", **play(make_env("Pendulum-v1", max_episode_steps=5)), env_id="Tank-v0")
    with pytest.raises(
        InputError, match=r"Tank-v0: actions are MultiDiscrete.*expected a vector or integers"
    ):
        load_dataset("log.npz", progress=False)


def test_a_format_of_ones_own_is_trained_on(folder):
    columns = play(make_env("Pendulum-v1", max_episode_steps=5))
    rows = np.column_stack(
        [columns["observations"], columns["actions"], columns["rewards"], columns["truncations"]]
    )
    names = "observation_0,observation_1,observation_2,action_0,reward,terminated"
    np.savetxt("log.dat", rows, delimiter=" ", header=names.replace(",", " "), comments="")
    with pytest.raises(InputError, match=r"unknown kind .*\.hdf5.*for a format of yours .* CHIBIT_PLUGINS"):
        load_dataset("log.dat")
    import my_dat  # noqa: F401

    dataset = load_dataset("log.dat", progress=False)
    assert (dataset.spec.name, dataset.num_episodes, dataset.spec.state_dim) == ("log", 4, 3)
    np.testing.assert_allclose(dataset.rewards, columns["rewards"], rtol=1e-6)
    assert main(["train", "--agent", "bc", "--data", "log.dat", "--out", "run", *FLAGS]) == 0
    Path("log.dat").write_text("a b\n1 2\n")
    with pytest.raises(InputError, match="found a, b; expected observation_0"):
        load_dataset("log.dat")
    with pytest.raises(InputError, match=r"log2\.dat': no such file"):
        load_dataset("log2.dat")


@pytest.mark.parametrize("place", ["module", "notebook", "console"])
def test_a_format_that_was_corrected_reads_anew(folder, monkeypatch, place):
    Path("log.dat").write_text("observation_0 action_0 reward terminated\n1 2 3 0\n1 2 3 1\n")
    source = Path("my_dat.py").read_text()
    wrong = source.replace('table[:, names.index("reward")]', 'table[:, names.index("reward")] + 1')
    found = []
    for number, text in enumerate((wrong, source, source)):
        if place == "module":
            Path("my_dat.py").write_text(text)
            sys.modules.pop("my_dat", None)
            importlib.import_module("my_dat")
        else:  # a module without a file, whose cells only a notebook keeps
            monkeypatch.setitem(sys.modules, "cells", types.ModuleType("cells"))
            if place == "notebook":
                lines = len(text), None, text.splitlines(keepends=True), f"{place} {number}"
                monkeypatch.setitem(linecache.cache, f"{place} {number}", lines)
            exec(compile(text, f"{place} {number}", "exec", dont_inherit=True), vars(sys.modules["cells"]))
        found.append(load_dataset("log.dat", progress=False))
        np.testing.assert_array_equal(found[-1].rewards, 4.0 if number == 0 else 3.0)
    assert (found[1].folder == found[2].folder) == (place != "console")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("1 2 3 0\n1 2 x 1\n", "ValueError: could not convert string"),
        ("1 2 3 0\n1 2 1\n", "ValueError: "),
        ("", "IndexError: "),
    ],
)
@pytest.mark.filterwarnings("ignore:.*input contained no data")
def test_what_a_format_of_ones_own_stumbles_over_is_one_line(folder, monkeypatch, capsys, rows, reason):
    Path("bad.dat").write_text(f"observation_0 action_0 reward terminated\n{rows}")
    import my_dat

    assert main(["data", "inspect", "bad.dat"]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"bad.dat: format my_dat:Dat cannot read it ({reason}" in error and "Traceback" not in error
    monkeypatch.setattr(my_dat.Dat, "claim", lambda self, path: 1 / 0)
    with pytest.raises(DamagedFileError, match=r"my_dat:Dat cannot read it \(ZeroDivisionError"):
        load_dataset("bad.dat")


OWN_APART = """
import contextlib, os
import numpy as np
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import record_columns
from chibit.data.readers.sandbox import ApartFormat

class Odd(ApartFormat, key="odd"):
    suffixes = (".odd",)

    @contextlib.contextmanager
    def read_here(self, path):
        ones = np.ones((2, 1))
        columns = {"observations": ones, "actions": ones, "rewards": ones, "terminations": ones}
        yield record_columns(columns, where=str(path)), Origin(name=f"read-by-{os.getpid()}")
"""


def test_a_format_of_ones_own_is_read_in_a_process_of_its_own(folder, monkeypatch):
    Path("my_odd.py").write_text(OWN_APART)
    Path("log.odd").write_text("")
    import my_odd  # noqa: F401

    with pytest.raises(InputError, match=r"log\.odd: format 'odd' is not known here.* CHIBIT_PLUGINS"):
        load_dataset("log.odd", progress=False)
    monkeypatch.setenv("CHIBIT_PLUGINS", "my_odd")
    name = load_dataset("log.odd", progress=False).spec.name
    assert name.startswith("read-by-") and name != f"read-by-{os.getpid()}"


def test_a_suffix_that_is_read_already_is_refused():
    class Mine(Format, key="mine"):
        suffixes = (".npz",)

        def read(self, path):
            pytest.fail("is read although two formats may be meant")

    with pytest.raises(InputError, match=r"\.npz files: formats .*'mine'.* both read them"):
        load_dataset("x.npz")
