"""Collected data sets: Minari reads them, the seed decides them, and no part passes for a whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
from minari.namespace import list_local_namespaces

from chibit.core.errors import InputError, ResourceError
from chibit.data.collect import mujoco as collect_module
from chibit.data.collect.behavior import BehaviorPolicy, PolicyRecord, load_ladder
from chibit.data.collect.behavior.rollout import Episode
from chibit.data.collect.mujoco import collect, find_collectable, list_collectable, plan

ENV_NAMES = ("hopper", "halfcheetah", "walker2d")


def small(dataset: str, out: Path, num_steps: int = 2_000, seed: int = 0, num_processes: int = 1) -> Path:
    return collect(
        dataset, num_steps=num_steps, seed=seed, num_processes=num_processes, out=out, progress=False
    )


def content(folder: Path) -> list[dict[str, bytes]]:
    """Return every array of a data set as bytes, episode by episode."""
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        return [
            {key: file[f"episode_{i}"][key][()].tobytes() for key in file[f"episode_{i}"]}
            for i in range(len(file))
        ]


def metadata(folder: Path) -> dict:
    return json.loads((folder / "data" / "metadata.json").read_text())


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small("hopper-medium", tmp_path_factory.mktemp("minari"))


@pytest.fixture
def loaded(medium: Path, monkeypatch: pytest.MonkeyPatch) -> minari.MinariDataset:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(medium.parents[2]))
    return minari.load_dataset("chibit/hopper/medium-v0")


def test_minari_reads_whole_episodes(loaded: minari.MinariDataset, medium: Path) -> None:
    lengths = []
    for episode in loaded.iterate_episodes():
        length = len(episode.rewards)
        lengths.append(length)
        assert episode.observations.shape == (length + 1, 11) and episode.observations.dtype == np.float64
        assert episode.actions.shape == (length, 3) and episode.actions.dtype == np.float32
        assert np.abs(episode.actions).max() <= 1.0
        ends = episode.terminations | episode.truncations
        assert ends[-1] and not ends[:-1].any()
        assert not (episode.terminations & episode.truncations).any()
    assert sum(lengths) == loaded.total_steps == metadata(medium)["total_steps"]
    assert sum(lengths[:-1]) < 2_000 <= sum(lengths)


def test_minari_recovers_the_environment(loaded: minari.MinariDataset) -> None:
    for eval_env in (False, True):
        env = loaded.recover_environment(eval_env=eval_env)
        assert env.spec.id == "Hopper-v5"
        assert env.observation_space == loaded.observation_space and env.action_space == loaded.action_space


def test_minari_knows_the_score_references(loaded: minari.MinariDataset) -> None:
    assert minari.get_normalized_score(loaded, np.array([-20.272305, 3234.3])) == pytest.approx([0.0, 1.0])


def test_minari_lists_it(medium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(medium.parents[2]))
    assert list(minari.list_local_datasets()) == ["chibit/hopper/medium-v0"]
    assert sorted(list_local_namespaces()) == ["chibit", "chibit/hopper"]


def test_metadata_says_where_the_data_come_from(medium: Path) -> None:
    found = metadata(medium)
    assert found["physics"]["d4rl_physics"] is True and found["physics"]["contact_margin"] == "max"
    assert found["chibit"]["settings"]["seed"] == 0 and found["chibit"]["settings"]["num_steps"] == 2_000
    assert "not D4RL's data" in found["description"]
    (policy,) = found["chibit"]["behaviour_policies"]
    record = load_ladder("hopper").medium.record
    assert (policy["name"], policy["mean_score"]) == (record.name, record.mean_score)
    assert policy["episodes_here"] == found["total_episodes"]
    with h5py.File(medium / "data" / "main_data.hdf5") as file:
        returns = [file[f"episode_{i}"]["rewards"][()].sum() for i in range(len(file))]
    assert found["chibit"]["mean_return"] == pytest.approx(np.mean(returns))


def test_a_relative_folder_is_as_good(medium: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = small("hopper-medium", Path("some") / "folder")
    assert content(folder) == content(medium)
    assert metadata(folder)["dataset_size"] == metadata(medium)["dataset_size"] > 0


def test_number_of_processes_changes_nothing(medium: Path, tmp_path: Path) -> None:
    assert content(small("hopper-medium", tmp_path, num_processes=2)) == content(medium)


def test_seed_changes_everything(medium: Path, tmp_path: Path) -> None:
    other = content(small("hopper-medium", tmp_path, seed=1))
    assert all(a["rewards"] != b["rewards"] for a, b in zip(content(medium), other, strict=False))


def test_fewer_steps_are_the_beginning_of_more(medium: Path, tmp_path: Path) -> None:
    fewer = content(small("hopper-medium", tmp_path, num_steps=1_000))
    assert 0 < len(fewer) < len(content(medium))
    assert fewer == content(medium)[: len(fewer)]


def test_medium_expert_begins_as_medium(medium: Path, tmp_path: Path) -> None:
    mixed = small("hopper-medium-expert", tmp_path, num_steps=3_000)
    names = [policy["name"] for policy in metadata(mixed)["chibit"]["behaviour_policies"]]
    assert names == [load_ladder("hopper").medium.record.name, "expert"]
    count = metadata(mixed)["chibit"]["behaviour_policies"][0]["episodes_here"]
    assert content(mixed)[:count] == content(medium)[:count]


def test_replay_has_all_policies_in_training_order(tmp_path: Path) -> None:
    replay = small("hopper-medium-replay", tmp_path, num_steps=12_000)
    policies = metadata(replay)["chibit"]["behaviour_policies"]
    assert [p["name"] for p in policies] == [p.record.name for p in load_ladder("hopper").replay]
    assert policies[0]["name"] == "random" and len(policies) >= 8
    assert metadata(replay)["total_steps"] >= 12_000


def test_plan_divides_the_steps() -> None:
    ladder = load_ladder("hopper")
    assert [(p.stream, p.until) for p in plan(ladder, "medium-expert", 101)] == [
        ("medium", 50),
        ("expert", 101),
    ]
    phases = plan(ladder, "medium-replay", 400_000)
    assert [p.policy for p in phases] == [p.record.name for p in ladder.replay]
    assert len({p.stream for p in phases}) == len(phases) and phases[-1].until == 400_000


def test_replay_buffer_goes_to_the_nearest_snapshot() -> None:
    records = [PolicyRecord(name=str(t), algorithm="ppo", train_steps=t) for t in (0, 0, 20, 60, 100)]
    policies = [BehaviorPolicy(record, [], np.zeros(1)) for record in records]
    # edges 0, 10, 40, 80, 100; the first tenth is shared by the random and the untrained policy
    shares = collect_module._replay_shares(policies)
    np.testing.assert_allclose(shares, [0.05, 0.05, 0.3, 0.4, 0.2])


def test_default_sizes_are_those_of_d4rl() -> None:
    sizes = {entry.name: entry.default_num_steps for entry in list_collectable()}
    assert len(sizes) == 15
    assert [sizes[f"{name}-medium"] for name in ENV_NAMES] == [1_000_000] * 3
    assert [sizes[f"{name}-medium-replay"] for name in ENV_NAMES] == [400_000, 200_000, 300_000]
    assert sizes["walker2d-medium-expert"] == 2_000_000


def test_a_set_has_two_names() -> None:
    assert find_collectable("hopper-medium") == find_collectable("chibit/hopper/medium-v0")
    assert find_collectable("walker2d-medium-replay").dataset_id == "chibit/walker2d/medium-replay-v0"


@pytest.mark.parametrize(
    "given", ["hopper-mediun", "chibit/hopper/medium", "../hopper-medium", "hopper-medium-v2"]
)
def test_unknown_name_is_refused_with_the_nearest(given: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean '.*hopper.medium"):
        small(given, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "value"), [("num_steps", 0), ("num_processes", 0), ("seed", -1)])
def test_numbers_out_of_range_are_refused(name: str, value: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{name}: got {value}, expected"):
        small("hopper-medium", tmp_path, **{name: value})


def test_same_settings_are_reused(medium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect_module, "_roll_out", None)
    assert small("chibit/hopper/medium-v0", medium.parents[2]) == medium


def test_a_set_depends_on_its_own_policies_only(medium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = load_ladder("hopper")
    others = replace(ladder, policies=(*ladder.policies[:-1], ladder.random))
    monkeypatch.setattr(collect_module, "load_ladder", lambda _: others)
    assert small("hopper-medium", medium.parents[2]) == medium
    others = replace(ladder, policies=(*ladder.policies[:-2], ladder.random, ladder.expert))
    with pytest.raises(InputError, match="exists with other settings"):
        small("hopper-medium", medium.parents[2])


def test_other_settings_are_refused(medium: Path) -> None:
    with pytest.raises(InputError, match=r"exists with other settings \(seed 0 there, 3 asked for\); delete"):
        small("hopper-medium", medium.parents[2], seed=3)


def test_a_foreign_folder_is_refused_and_kept(tmp_path: Path) -> None:
    foreign = tmp_path / "chibit" / "hopper" / "medium-v0"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not a set that chibit collected"):
        small("hopper-medium", tmp_path)
    assert (foreign / "notes.txt").read_text() == "mine"


def test_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = collect_module._roll_out

    def roll_out(*task: object) -> list[Episode]:
        if task[-1] == 1:
            raise KeyboardInterrupt
        return real(*task)

    monkeypatch.setattr(collect_module, "_roll_out", roll_out)
    with pytest.raises(KeyboardInterrupt):
        small("hopper-medium", tmp_path, num_steps=20_000)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_too_little_space_is_noticed_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"1000000 steps take about \d+ MiB, but 10 MiB are free"):
        small("hopper-medium", tmp_path, num_steps=1_000_000)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from chibit.core.errors import ResourceError
from chibit.data.collect.mujoco import collect
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    collect("hopper-medium", num_steps=4000, out=Path(sys.argv[1]), progress=False)
except ResourceError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert "cannot write" in done.stdout and done.stdout.count("\n") == 1 and done.stderr == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out is a file and in the way of this folder"):
        small("hopper-medium", tmp_path / "out")


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, float]]:
    """Mean normalized return of sixteen or more episodes of every set."""
    out = tmp_path_factory.mktemp("levels")
    yield {
        entry.name: metadata(small(entry.name, out, num_steps=16_000, num_processes=2))["chibit"][
            "mean_score"
        ]
        for entry in list_collectable()
    }


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("env_name", ENV_NAMES)
def test_levels_are_as_good_as_promised(env_name: str, scores: dict[str, float]) -> None:
    score = {level: scores[f"{env_name}-{level}"] for level in collect_module.LEVELS}
    assert -5 < score["random"] < 5
    assert 25 < score["medium"] < 60
    assert score["expert"] > 80
    assert (
        score["random"] < score["medium-replay"] < score["medium"] < score["medium-expert"] < score["expert"]
    )
