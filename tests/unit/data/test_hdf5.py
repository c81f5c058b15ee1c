"""Hostile and damaged HDF5: refused on its own description, nothing read outside, nothing large allocated."""

import random
import time
import tracemalloc

import h5py
import numpy as np
import pytest

from chibit.core.errors import DamagedFileError, InputError, ResourceError, UserError
from chibit.data.readers.d4rl import read_d4rl


def read(path):
    """Read everything a conversion would read."""
    with read_d4rl(path) as (recording, origin):
        return origin, list(recording.blocks())


def refuse(path, message, kind=DamagedFileError):
    tracemalloc.start()
    with pytest.raises(kind, match=message) as caught:
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
    assert "\n" not in str(caught.value)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.bin"
    path.write_bytes(np.full(100_000, 7.0, np.float32).tobytes())
    return path


def test_external_storage_is_not_read(write_hdf5, hopper_columns, secret):
    rewards = hopper_columns.pop("rewards")
    path = write_hdf5(hopper_columns)
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", rewards.shape, "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        assert file["rewards"][0] == 7.0  # the library itself would read it
    refuse(path, "rewards keeps its data in another file")


@pytest.mark.parametrize("kind", ["external", "soft"])
def test_links_are_not_followed(write_hdf5, hopper_columns, kind, tmp_path):
    rewards = hopper_columns.pop("rewards")
    path = write_hdf5(hopper_columns)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["rewards"] = rewards
    with h5py.File(path, "a") as file:
        file["elsewhere"] = rewards
        link = (
            h5py.ExternalLink("other.hdf5", "/rewards") if kind == "external" else h5py.SoftLink("/elsewhere")
        )
        file["rewards"] = link
        assert len(file["rewards"]) == len(rewards)
    refuse(path, f"/rewards: {kind} link")


def test_virtual_data_sets_are_refused(write_hdf5, hopper_columns, tmp_path):
    rewards = hopper_columns.pop("rewards")
    path = write_hdf5(hopper_columns)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["rewards"] = rewards
    layout = h5py.VirtualLayout(rewards.shape, "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "rewards", rewards.shape)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("rewards", layout)
    refuse(path, "rewards is a virtual data set")


@pytest.mark.parametrize(
    "dtype", [h5py.string_dtype(), h5py.vlen_dtype(np.float32), np.dtype([("a", "f4")]), "c8", "S4", "f2,f2"]
)
def test_types_that_are_not_plain_numbers_are_refused(write_hdf5, hopper_columns, dtype):
    num_steps = len(hopper_columns.pop("rewards"))
    path = write_hdf5(hopper_columns)
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (num_steps,), dtype)
    refuse(path, "rewards has type .* expected plain numbers", InputError)


def test_unknown_filters_are_refused(write_hdf5, hopper_columns):
    num_steps = len(hopper_columns.pop("rewards"))
    path = write_hdf5(hopper_columns)
    with h5py.File(path, "a") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((10,))
        properties.set_filter(305, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple((num_steps,))
        h5py.h5d.create(file.id, b"rewards", h5py.h5t.IEEE_F32LE, space, properties)
    refuse(path, "rewards needs filter 305")


def test_a_small_file_cannot_claim_a_terabyte(write_hdf5, hopper_columns):
    path = write_hdf5({}, "claims.hdf5")
    with h5py.File(path, "a") as file:
        for name, column in hopper_columns.items():
            file.create_dataset(name, (4_000_000_000_000, *column.shape[1:]), column.dtype, chunks=True)
    refuse(path, "declares .* of data in a file of .* not to be trusted")


def test_a_compressed_bomb_is_not_unpacked(write_hdf5, hopper_columns, monkeypatch):
    num_steps = 500_000
    path = write_hdf5({}, "bomb.hdf5")
    with h5py.File(path, "a") as file:
        for name, column in hopper_columns.items():
            values = np.zeros((num_steps, *column.shape[1:]), column.dtype)
            file.create_dataset(name, data=values, compression="gzip")
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr("chibit.data.readers.size_limits.memory_budget", lambda: 1 << 24)
    with pytest.raises(ResourceError, match="more than half of this machine's memory"):
        read(path)


def test_what_does_not_fit_into_memory_is_refused(write_hdf5, hopper_columns, monkeypatch):
    monkeypatch.setattr("chibit.data.readers.size_limits.memory_budget", lambda: 1000)
    with pytest.raises(ResourceError, match="more than half of this machine's memory"):
        read(write_hdf5(hopper_columns))


def test_enormous_chunks_are_refused(write_hdf5, hopper_columns):
    num_steps = len(hopper_columns.pop("rewards"))
    path = write_hdf5(hopper_columns)
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (num_steps,), "f4", maxshape=(None,), chunks=(100_000_000,))
    refuse(path, "rewards has chunks of")


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(InputError, match=r"none\.hdf5: no such file"):
        read(tmp_path / "none.hdf5")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


def test_a_group_is_no_column(write_hdf5, hopper_columns):
    del hopper_columns["rewards"]
    path = write_hdf5(hopper_columns)
    with h5py.File(path, "a") as file:
        file.create_group("rewards")
    refuse(path, "rewards is not an array")


def test_a_file_cut_anywhere_is_refused(write_hdf5, hopper_columns, tmp_path):
    content = write_hdf5(hopper_columns).read_bytes()
    path = tmp_path / "cut.hdf5"
    for sixteenths in range(16):
        path.write_bytes(content[: len(content) * sixteenths // 16])
        refuse(path, "damaged HDF5 file")


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "other.hdf5"
    path.write_bytes(content)
    refuse(path, "damaged HDF5 file")


def test_mutated_files_are_read_or_refused_in_one_line(write_hdf5, hopper_columns, tmp_path):
    """Bytes changed at random, mostly where the structure is: no crash, no other exception, no hang."""
    content = write_hdf5(hopper_columns, compression="gzip").read_bytes()
    path = tmp_path / "mutated.hdf5"
    generator = random.Random(0)
    num_refused, begin = 0, time.process_time()
    for _ in range(150):
        mutated = bytearray(content)
        for _ in range(generator.choice([1, 2, 8, 32])):
            limit = min(len(mutated), 8000) if generator.random() < 0.7 else len(mutated)
            mutated[generator.randrange(limit)] = generator.choice([0, 255, generator.randrange(256)])
        path.write_bytes(mutated)
        try:
            read(path)
        except UserError as error:
            num_refused += 1
            assert "\n" not in str(error)
    assert num_refused > 20
    assert time.process_time() - begin < 60


def test_a_data_set_without_a_shape_is_refused(write_hdf5, hopper_columns):
    hopper_columns.pop("rewards")
    path = write_hdf5(hopper_columns)
    with h5py.File(path, "a") as file:
        file["rewards"] = h5py.Empty("f4")
    refuse(path, "rewards is an empty data set", InputError)
