"""Pickled trajectories: real ones are read, whoever wrote them; what could act is refused and does not."""

import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chibit.core.errors import DamagedFileError, InputError, ResourceError, UserError
from chibit.data.load import load_dataset
from chibit.data.readers import unpickler as unpickling
from chibit.data.readers.columns import Reading
from chibit.data.readers.pickles import read_trajectory_list
from chibit.data.readers.unpickler import MalformedError, RefusedError, read_trajectories


def read(path):
    with read_trajectory_list(path) as (recording, origin):
        return recording, origin


@pytest.mark.parametrize("protocol", range(6))
def test_lists_of_every_protocol_become_the_same_data_set(write_pickle, hopper_episodes, home, protocol):
    dataset = load_dataset(write_pickle(hopper_episodes, protocol=protocol))
    assert (dataset.spec.name, dataset.spec.env_id) == ("hopper-medium-v2", "Hopper-v4")
    assert dataset.spec.d4rl_physics
    for index, episode in enumerate(hopper_episodes):
        trajectory = dataset.trajectory(index)
        assert np.array_equal(trajectory.observations, episode["observations"][:-1].astype(np.float32))
        assert np.array_equal(trajectory.final_observation, episode["observations"][-1].astype(np.float32))
        assert np.array_equal(trajectory.actions, episode["actions"])
        terminated = bool(episode["terminations"][-1])
        # The lists do not record truncations: an episode that did not terminate was cut.
        assert dataset.episode_ends[index].tolist() == [terminated, not terminated]


def test_lists_without_next_observations(write_pickle, hopper_episodes, home):
    assert load_dataset(write_pickle(hopper_episodes, with_next=False)).final_observations is None


def as_numpy_1(data):
    """The same pickle as numpy before version 2 wrote it."""
    assert b"numpy._core" in data or int(np.__version__.partition(".")[0]) == 1
    old = data
    for new, ancient in (
        (b"numpy._core.multiarray", b"numpy.core.multiarray"),
        (b"numpy._core.numeric", b"numpy.core.numeric"),
    ):
        old = old.replace(b"\x8c" + bytes([len(new)]) + new, b"\x8c" + bytes([len(ancient)]) + ancient)
    return old


@pytest.mark.parametrize("protocol", [4, 5])
def test_names_of_older_numpy_are_known(write_pickle, hopper_episodes, protocol):
    data = write_pickle(hopper_episodes, protocol=protocol).read_bytes()
    # Frame lengths no longer fit; without frames, lengths do not matter.
    plain = pickle._dumps(pickle.loads(data), protocol=protocol)
    unframed = io.BytesIO()
    pickler = pickle._Pickler(unframed, protocol=protocol)
    pickler.framer.start_framing = lambda: None
    pickler.dump(pickle.loads(plain))
    old = as_numpy_1(unframed.getvalue())
    trajectories = read_trajectories(io.BytesIO(old))
    assert np.array_equal(trajectories[0]["actions"], hopper_episodes[0]["actions"])


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i8", "<u2", "|b1", "<f2"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_of_any_number_and_order_come_back_equal(dtype, protocol):
    values = (np.arange(24).reshape(6, 4) % 2).astype(dtype)
    for array in (values, np.asfortranarray(values), values[:0], values[::2]):
        trajectory = {
            "observations": array,
            "actions": array,
            "rewards": [np.float32(1.5)] * len(array),
            "terminals": np.zeros(len(array), bool),
        }
        found = read_trajectories(io.BytesIO(pickle.dumps([trajectory], protocol=protocol)))[0]
        assert np.array_equal(found["observations"], array)
        assert found["observations"].dtype == array.dtype
        assert found["rewards"].tolist() == [1.5] * len(array)


class Runs:
    """A pickle of this runs a command when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def is_picklable(value):
    try:
        return bool(pickle.dumps(value))
    except TypeError:
        return False


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_pickle_is_executed(tmp_path, protocol):
    sentinel = tmp_path / "executed"
    attacks = [
        Runs(os.system, f"touch {sentinel}"),
        Runs(eval, f"open({str(sentinel)!r}, 'w')"),
        Runs(open, str(sentinel), "w"),
        Runs(subprocess.Popen, ["touch", str(sentinel)]),
        Runs(np.load, str(tmp_path / "x.npy")),
        Runs(np.memmap, str(sentinel), "u1", "w+", 0, (10,)),
        Runs(getattr, np, "load"),
    ]
    attacks = [attack for attack in attacks if is_picklable(attack)]
    assert len(attacks) >= 6
    for attack in attacks:
        for value in ([attack], [{"observations": attack}], attack, {"x": (1, [attack])}):
            with pytest.raises(RefusedError, match="it asks for"):
                read_trajectories(io.BytesIO(pickle.dumps(value, protocol=protocol)))
    path = tmp_path / "attack.pkl"
    path.write_bytes(pickle.dumps(attacks, protocol=protocol))
    with pytest.raises(DamagedFileError, match="refused: it asks for (posix|nt).system"):
        read(path)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'touch x'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"(S'touch x'\nios\nsystem\n.",
        b"cnumpy\nload\n.",
        b"cnumpy.testing._private.utils\nrunstring\n.",
        b"cbuiltins\ngetattr\n.",
        b"ccopyreg\n_reconstructor\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0ddtype.__init__\x93.",
        b"Pid\n.",
        b"\x82\x01.",
    ],
)
def test_hand_written_pickles_are_refused(tmp_path, code):
    path = tmp_path / "code.pkl"
    path.write_bytes(code)
    with pytest.raises(DamagedFileError, match="refused"):
        read(path)
    assert not (tmp_path / "x").exists()
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array([{}, []], dtype=object), RefusedError),
        (np.array(["text"]), MalformedError),
        (np.zeros(2, [("a", "f4")]), RefusedError),
        (np.zeros(2, complex), MalformedError),
        (np.array(["2020-01-01"], "M8[D]"), MalformedError),
        (np.zeros((1, 1, 1, 1, 2)), RefusedError),
    ],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_of_anything_but_numbers_are_refused(array, kind, protocol):
    data = pickle.dumps([{"observations": array}], protocol=protocol)
    with pytest.raises(kind, match="expected plain numbers|of a malformed shape"):
        read_trajectories(io.BytesIO(data))


def test_a_shape_that_does_not_fit_its_bytes_is_refused():
    data = pickle.dumps([{"observations": np.zeros((7, 9))}], protocol=2)
    assert data.count(b"K\x07K\t\x86") == 1
    with pytest.raises(RefusedError, match=r"shape \(255, 9\) in 504 bytes"):
        read_trajectories(io.BytesIO(data.replace(b"K\x07K\t\x86", b"K\xffK\t\x86")))


def test_memory_is_limited(tmp_path):
    terabyte = b"\x80\x04B\xff\xff\xff\xff" + b"x"  # bytes of a length that is not there
    eight = b"\x80\x05\x8e" + struct.pack("<Q", 1 << 40) + b"x"
    mutable = b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x"
    # Elsewhere the address space has no limit, and four gigabytes may be had.
    said = "more memory than its size allows" if sys.platform == "linux" else "refused"
    for index, code in enumerate((terabyte, eight, mutable)):
        path = tmp_path / f"large{index}.pkl"
        path.write_bytes(code)
        with pytest.raises(DamagedFileError, match=said):
            read(path)


def test_one_array_used_thousands_of_times_is_refused(tmp_path):
    shared = {
        "observations": np.zeros((10_000, 10)),
        "actions": np.zeros((10_000, 1)),
        "rewards": np.zeros(10_000),
        "terminals": np.zeros(10_000, bool),
    }
    path = tmp_path / "shared.pkl"
    path.write_bytes(pickle.dumps([shared] * 2000))
    with pytest.raises(DamagedFileError, match="once written out"):
        read(path)


def test_a_pickle_that_takes_forever_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("chibit.data.readers.pickles._MAX_SECONDS", 1)
    path = tmp_path / "slow.pkl"
    # A tuple of tuples of tuples: to hash it for the dictionary's key takes 2^60 steps.
    path.write_bytes(
        b"(tp0\n" + b"".join(b"0(g%d\ng%d\ntp%d\n" % (i, i, i + 1) for i in range(60)) + b"(g60\nI1\nd."
    )
    with pytest.raises(DamagedFileError, match=r"reading it ended with (signal \d+|no end in sight)"):
        read(path)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ({}, InputError, "an empty dict; expected a list of trajectories or a dictionary of columns"),
        ({"ep_0": {"obs": [1]}}, InputError, "the dictionary has no observations; found 'ep_0'"),
        ([], InputError, "an empty list; expected a list of trajectories"),
        (3, InputError, "a int"),
        ([3], InputError, "trajectory 0 is a int"),
        ([{"observations": "x"}], InputError, "observations is no array of numbers"),
        ([{"observations": [[], {}]}], InputError, "no array of numbers"),
    ],
)
def test_other_content_is_refused(tmp_path, value, kind, message):
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(kind, match=message):
        read(path)


def trajectory(num_steps=4, **changes):
    columns = {
        "observations": np.zeros((num_steps, 2)),
        "actions": np.zeros((num_steps, 1)),
        "rewards": np.ones(num_steps),
        "terminals": np.arange(num_steps) == num_steps - 1,
    } | changes
    return {name: column for name, column in columns.items() if column is not None}


@pytest.mark.parametrize(
    ("trajectories", "message"),
    [
        ([trajectory(rewards=None)], "trajectory 0 has no rewards; found"),
        (
            [trajectory(), trajectory(rewards=np.ones(3))],
            "trajectory 1: columns differ in length .*rewards 3",
        ),
        ([trajectory(), trajectory(observations=np.zeros((4, 3)))], "observations differ in shape"),
        ([trajectory(0)], "no trajectory has steps"),
    ],
)
def test_columns_that_do_not_fit_are_bad_input(tmp_path, trajectories, message):
    path = tmp_path / "list.pkl"
    path.write_bytes(pickle.dumps(trajectories))
    with pytest.raises(InputError, match=message):
        read(path)


def test_empty_trajectories_are_left_out_and_said(tmp_path):
    path = tmp_path / "list.pkl"
    path.write_bytes(pickle.dumps([trajectory(), trajectory(0), trajectory(1), trajectory(2)]))
    recording, origin = read(path)
    assert recording.episode_starts.tolist() == [0, 4, 5, 7]
    assert "left out 1 of 4 episodes: they have no steps" in origin.notes


def test_trajectories_need_no_terminals(tmp_path):
    path = tmp_path / "list.pkl"
    path.write_bytes(pickle.dumps([trajectory(3, terminals=None), trajectory(2, terminals=None)]))
    recording, _ = read(path)
    assert recording.episode_ends.tolist() == [[False, True]] * 2
    assert recording.notes == ("no terminations recorded: every episode counts as cut",)


def test_a_dictionary_of_columns_holds_many_episodes(tmp_path):
    columns = {"temp": np.arange(6.0), "obs": np.ones((6, 2)), "valve": np.arange(6) / 6, "r": np.ones(6)}
    path = tmp_path / "flat.pkl"
    path.write_bytes(pickle.dumps({**columns, "batch": np.array([4, 4, 1, 1, 1, 9])}))
    mapping = {"observations": ("obs", "temp"), "actions": ("valve",), "rewards": ("r",)}
    with read_trajectory_list(path, Reading({**mapping, "episode": ("batch",)})) as (recording, _):
        assert recording.episode_starts.tolist() == [0, 2, 5, 6]
        assert next(recording.blocks()).observations[:, 2].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(InputError, match="no terminations; found actions, .*--episode-length N"):
        read_trajectory_list(path, Reading(mapping)).__enter__()
    path.write_bytes(pickle.dumps([trajectory(), trajectory()]))
    with pytest.raises(InputError, match="every trajectory is an episode; leave episode="):
        read_trajectory_list(path, Reading({"episode": ("batch",)})).__enter__()


def test_damaged_trajectories_are_left_out_and_counted_where_asked(tmp_path):
    path = tmp_path / "list.pkl"
    damaged = [trajectory(3, actions=np.zeros((2, 1))), trajectory(4, rewards=None)]
    path.write_bytes(pickle.dumps([damaged[0], trajectory(2), trajectory(0), damaged[1]]))
    with pytest.raises(InputError, match="trajectory 0: columns differ in length"):
        read(path)
    with read_trajectory_list(path, Reading(skip_damaged=True)) as (recording, origin):
        assert recording.episode_starts.tolist() == [0, 2]
    found = {"left out 1 of 4 episodes: they have no steps", "left out 2 of 4 episodes: damaged"}
    assert found <= set(origin.notes)
    path.write_bytes(pickle.dumps(damaged))
    with pytest.raises(InputError, match="trajectory 1 has no rewards"):
        read_trajectory_list(path, Reading(skip_damaged=True)).__enter__()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terminals": None}, "trajectory 2 has observations, actions, rewards; expected .*terminations as"),
        ({"timeouts": np.zeros(3, bool)}, "trajectory 2 has .*truncations; expected observations"),
        ({"next_observations": np.zeros((3, 2))}, "trajectory 2 has .*next_observations; expected"),
        ({"observations": np.zeros((3, 1))}, "trajectory 2: observations differ in shape between"),
    ],
)
def test_trajectories_unlike_the_first_are_damaged_and_others_keep_their_ends(tmp_path, changes, message):
    path = tmp_path / "list.pkl"
    ended = trajectory(2, terminals=np.array([False, True]))
    path.write_bytes(pickle.dumps([trajectory(0, terminals=None), ended, trajectory(3, **changes), ended]))
    with pytest.raises(InputError, match=message):
        read(path)
    with read_trajectory_list(path, Reading(skip_damaged=True)) as (recording, origin):
        assert recording.episode_ends.tolist() == [[True, False]] * 2
        assert not any("no terminations" in note for note in recording.notes)
    assert "left out 1 of 4 episodes: damaged" in origin.notes


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.pkl: no such file"):
        read(tmp_path / "none.pkl")


def test_a_file_too_large_for_memory_is_refused(write_pickle, hopper_episodes, monkeypatch):
    monkeypatch.setattr("chibit.data.readers.pickles.memory_budget", lambda: 1000)
    with pytest.raises(ResourceError, match="of memory"):
        read(write_pickle(hopper_episodes))


def test_a_pickle_cut_anywhere_is_refused(write_pickle, hopper_episodes):
    data = write_pickle(hopper_episodes[:2]).read_bytes()
    for end in range(0, len(data), len(data) // 200):
        assert run_in_process(data[:end]) == unpickling.REFUSED


def run_in_process(data):
    """What the program would exit with, without the cost of starting it."""
    try:
        read_trajectories(io.BytesIO(data))
    except RefusedError:
        return unpickling.REFUSED
    except unpickling.MalformedError:
        return unpickling.MALFORMED
    except (MemoryError, *unpickling.DAMAGE):
        return unpickling.REFUSED
    return 0


MUTATE = """
import io, random, resource, runpy, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))  # a changed byte may well ask for a terabyte
reader = runpy.run_path(sys.argv[1])
data, generator, refused = sys.stdin.buffer.read(), random.Random(0), 0
for _ in range(2000):
    mutated = bytearray(data)
    for _ in range(generator.choice([1, 2, 8])):
        mutated[generator.randrange(len(mutated))] = generator.randrange(256)
    try:
        reader["read_trajectories"](io.BytesIO(bytes(mutated)))
    except (MemoryError, reader["RefusedError"], reader["MalformedError"], *reader["DAMAGE"]):
        refused += 1
print(refused)
"""


def test_mutated_pickles_are_read_or_refused(write_pickle, hopper_episodes):
    data = write_pickle(hopper_episodes[:2]).read_bytes()
    program = [sys.executable, "-I", "-c", MUTATE, unpickling.__file__]
    result = subprocess.run(program, input=data, capture_output=True, check=True)
    assert int(result.stdout) > 200


def test_the_reader_imports_nothing_of_chibit():
    code = (
        f"import runpy, sys; runpy.run_path({unpickling.__file__!r}); "
        "sys.exit(any(name.split('.')[0] in ('chibit', 'torch') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_errors_are_one_line(tmp_path):
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps("x\ny" * 1000))
    with pytest.raises(UserError) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_lists_of_lists_of_numbers_are_arrays(tmp_path):
    columns = {"observations": [[0.0, 1.0], [2, 3]], "actions": [(0.5,), (0.25,)], "rewards": [1, 2.0]}
    path = tmp_path / "lists.pkl"
    path.write_bytes(pickle.dumps([columns | {"terminals": [False, True]}]))
    recording, _ = read(path)
    assert recording.state_dim == 2
    ragged = columns | {"observations": [[0.0, 1.0], [2]], "terminals": [False, True]}
    path.write_bytes(pickle.dumps([ragged]))
    with pytest.raises(InputError, match="observations is no array of numbers"):
        read(path)
