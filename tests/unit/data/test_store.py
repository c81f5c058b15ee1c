import json
import multiprocessing
import shutil
import time

import numpy as np
import pytest

from chibit.core.errors import DamagedFileError, InputError, ResourceError
from chibit.data.load import from_arrays
from chibit.data.readers.origin import Origin
from chibit.data.readers.recording import record_columns
from chibit.data.statistics import RunningMoments, spread
from chibit.data.store import open_store, write_store

ORIGIN = Origin(name="test")


def make_columns(num_steps=300, seed=0, **changes):
    rng = np.random.default_rng(seed)
    columns = {
        "observations": rng.normal(5, 2, (num_steps, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (num_steps, 2)).astype(np.float32),
        "rewards": rng.normal(size=num_steps).astype(np.float32),
        "terminations": np.arange(num_steps) % 7 == 6,
        "truncations": np.arange(num_steps) % 30 == 29,
        "next_observations": rng.normal(5, 2, (num_steps, 3)).astype(np.float32),
    }
    return columns | changes


def write(folder, **changes):
    return write_store(folder, record_columns(make_columns(**changes), where="test"), ORIGIN)


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "store")


def test_what_is_written_is_read_back(store):
    columns, dataset = make_columns(), open_store(store, verify="hash")
    kept = dataset.num_steps
    assert kept == 300
    for name in ("observations", "actions", "rewards", "terminations", "truncations"):
        assert np.array_equal(getattr(dataset, name), columns[name][:kept]), name
    last_rows = dataset.episode_starts[1:] - 1
    assert np.array_equal(dataset.final_observations, columns["next_observations"][last_rows])
    assert dataset.episode_starts.dtype == np.int64


def test_statistics_are_those_of_numpy(store):
    dataset = open_store(store)
    observations = dataset.observations.astype(np.float64)
    assert dataset.spec.state_mean == pytest.approx(observations.mean(axis=0), rel=1e-12)
    assert dataset.spec.state_std == pytest.approx(observations.std(axis=0) + 1e-6, rel=1e-12)


def test_moments_do_not_depend_on_the_blocks():
    rows = np.random.default_rng(0).normal(1e6, 1e-2, (1000, 4))
    moments = RunningMoments(4)
    for block in np.array_split(rows, [1, 5, 300]):
        moments.add(block)
    assert moments.mean == pytest.approx(rows.mean(axis=0), rel=1e-14)
    assert moments.std == pytest.approx(rows.std(axis=0), rel=1e-6)


def test_constant_dimensions_are_not_blown_up(tmp_path):
    observations = make_columns()["observations"].copy()
    observations[:, 1] = 0.1
    spec = open_store(write(tmp_path / "store", observations=observations)).spec
    assert spec.state_std[1] == 1.0
    # A value that was never seen in the data stays what it is, instead of becoming a million.
    assert abs((1.1 - spec.state_mean[1]) / spec.state_std[1]) < 1.1


def test_spread_of_constants_large_and_small():
    mean = np.array([0.0, 1e6, 1e-3, 0.0])
    std = np.array([0.0, 1e-2, 1e-4, 1e-3])
    assert spread(mean, std) == pytest.approx([1.0, 1.0, 1.001e-4, 1e-3 + 1e-6])


def test_content_hash_is_that_of_the_data_alone(tmp_path, store):
    same = open_store(write(tmp_path / "elsewhere")).content_hash
    assert open_store(store).content_hash == same
    other_name = write_store(
        tmp_path / "named", record_columns(make_columns(), where="x"), Origin(name="other")
    )
    assert open_store(other_name).content_hash == same
    assert open_store(write(tmp_path / "other", seed=1)).content_hash != same


@pytest.mark.parametrize("name", ["records", "episode_starts", "episode_ends", "final_observations"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "longer"])
def test_every_file_that_is_cut_is_noticed_on_opening(store, name, damage):
    path = store / f"{name}.npy"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        cut = {"empty": b"", "half": content[: len(content) // 2], "longer": content + b"\0"}
        path.write_bytes(cut[damage])
    with pytest.raises(DamagedFileError, match=f"{name}.npy.*convert the data again"):
        open_store(store)


@pytest.mark.parametrize("name", ["records", "episode_starts", "episode_ends", "final_observations"])
def test_a_header_that_changed_never_escapes_as_another_error(store, name):
    path = store / f"{name}.npy"
    content = path.read_bytes()
    shape = open_store(store).records.shape
    for position in range(128):
        for bit in (1, 16, 128):
            changed = bytearray(content)
            changed[position] ^= bit
            path.write_bytes(changed)
            try:
                assert open_store(store).records.shape == shape
            except DamagedFileError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["records", "episode_starts", "episode_ends", "final_observations"])
def test_every_flipped_bit_is_noticed_by_its_hash(store, name):
    path = store / f"{name}.npy"
    content = bytearray(path.read_bytes())
    open_store(store, verify="hash")
    for position in np.linspace(0, len(content) - 1, 25, dtype=int).tolist():
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        with pytest.raises(DamagedFileError, match=f"{name}.npy"):
            open_store(store, verify="hash")
    path.write_bytes(content)
    open_store(store, verify="hash")


def same_json(one, other):
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_every_changed_byte_of_the_manifest_is_noticed(store):
    path = store / "manifest.json"
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 1
        if same_json(changed, content):
            continue  # white space, or the last digit of a number that reads the same
        path.write_bytes(changed)
        with pytest.raises((DamagedFileError, InputError)):
            open_store(store)


def test_a_manifest_with_a_right_hash_and_wrong_content_is_refused(store):
    path = store / "manifest.json"
    for change in ({"spec": 3}, {"files": {}}, {"notes": None}, {"schema": 2}):
        manifest = json.loads((store / "manifest.json").read_text()) | change
        from chibit.data.store import _manifest_hash

        manifest["manifest_sha256"] = _manifest_hash(manifest)
        kept = path.read_text()
        path.write_text(json.dumps(manifest))
        with pytest.raises(DamagedFileError, match=r"manifest\.json"):
            open_store(store)
        path.write_text(kept)


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        open_store(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="not the manifest of a store"):
        open_store(tmp_path)


@pytest.mark.parametrize(
    ("column", "row", "message"),
    [
        ("observations", (17, 2), r"observations, column 2 of row 17 \(episode 2, step 3\) is nan"),
        ("actions", (17, 0), "actions, column 0 of row 17"),
        ("rewards", (17,), r"rewards of row 17 \(episode 2, step 3\)"),
        ("next_observations", (13, 1), r"the observation after row 13 \(episode 1, step 6\) is not finite"),
    ],
)
def test_values_that_are_not_finite_are_named_with_their_place(tmp_path, column, row, message):
    changed = make_columns()[column].copy()
    changed[row] = np.nan
    with pytest.raises(InputError, match=message):
        write(tmp_path / "store", **{column: changed})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("observations", 1e300, "is inf"),
        ("observations", -2e38, "e.38; expected finite numbers below 1.7e38"),
        ("rewards", 1e300, "rewards of row 0 .* is 1e.300; expected"),
        ("rewards", 1e38, "the sum of rewards"),
    ],
)
def test_values_beyond_single_precision_are_refused(tmp_path, column, value, message):
    changed = make_columns()[column].astype(np.float64)
    changed[:10] = value
    with pytest.raises(InputError, match=message):
        write(tmp_path / "store", **{column: changed})


def test_next_observations_within_an_episode_do_not_matter(tmp_path):
    following = make_columns()["next_observations"].copy()
    following[12] = np.nan  # the store takes the next row there
    open_store(write(tmp_path / "store", next_observations=following))


@pytest.mark.parametrize("action", [-1, 4])
def test_discrete_actions_out_of_range_are_refused(tmp_path, action):
    actions = np.arange(300) % 4
    actions[5] = action
    origin = Origin(name="test", num_actions=4)
    with pytest.raises(
        InputError, match=rf"the action of row \d+ \(episode \d+, step \d+\) is {action}, expected 0 to 3"
    ):
        write_store(tmp_path / "s", record_columns(make_columns(actions=actions), where="x"), origin)


def test_discrete_actions_come_back_as_integers(tmp_path):
    actions = np.arange(300) % 5
    dataset = open_store(write(tmp_path / "store", actions=actions))
    assert (dataset.spec.num_actions, dataset.spec.act_dim) == (5, 0)
    assert dataset.actions.dtype == np.int64
    assert np.array_equal(dataset.actions, actions)
    assert dataset.spec.action_low == dataset.spec.action_high == ()


def test_a_folder_that_cannot_be_made_is_a_resource_error(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("chibit.core.temporary.os.mkdir", refuse)
    with pytest.raises(ResourceError, match="no permission"):
        write(tmp_path / "store")


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(ResourceError, match="limit"):
            write(tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []


def convert_at(moment, home):
    time.sleep(max(0.0, moment - time.time()))
    columns = make_columns(20_000)
    dataset = from_arrays(**columns, cache=home)
    return dataset.content_hash, float(dataset.rewards.sum())


def test_processes_that_convert_the_same_data_do_not_disturb_each_other(tmp_path):
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        jobs = [pool.apply_async(convert_at, (time.time() + 0.5, tmp_path)) for _ in range(6)]
        results = {job.get(60) for job in jobs}
    assert len(results) == 1
    stores = list((tmp_path / "stores").iterdir())
    assert len(stores) == 1
    open_store(stores[0], verify="hash")


def test_an_open_data_set_outlives_its_folder(store):
    dataset = open_store(store)
    total = dataset.rewards.sum()
    shutil.rmtree(store)
    assert dataset.rewards.sum() == total
