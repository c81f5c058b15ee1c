import subprocess
import sys
import types

import pytest
import torch

from chibit.core.errors import InputError
from chibit.core.platform import give_huge_pages
from chibit.core.runtime import (
    Runtime,
    capture_rng,
    free_memory,
    read_scalars,
    resolve_runtime,
    restore_rng,
    room_on,
    seed_torch,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two CUDA devices, as far as the choice of one looks; gives those that were chosen."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: cuda)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    yield chosen
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


def test_processes_take_huge_pages_unless_the_user_says_otherwise(monkeypatch):
    code = "import os; print(os.environ['GLIBC_TUNABLES'])"
    for given, expected in (
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=0", "glibc.malloc.check=0"),
    ):
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        if given is not None:
            monkeypatch.setenv("GLIBC_TUNABLES", given)
        give_huge_pages()
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == expected


def test_bf16_runs_matrix_products_in_bfloat16():
    runtime = resolve_runtime("cpu", "bf16")
    with runtime.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with resolve_runtime("cpu", "fp32").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tpu", "fp32", 1), "'tpu', expected auto, cpu, cuda, cuda:N or mps"),
        (("cuda:9", "fp32", 1), "'cuda:9' is not on this machine; use --device cpu"),
        (("mps", "fp32", 1), "'mps' is not on this machine"),
        (("meta", "fp32", 1), "'meta' is not on this machine"),
        (("cpu", "fp16", 1), "'fp16', expected fp32, tf32, bf16"),
        (("cpu", "tf32", 1), "tf32 is of CUDA GPUs, and the device is cpu; use fp32 or bf16"),
        (("cpu", "fp32", 0), "expected at least 1"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        resolve_runtime(*arguments)


def test_an_index_beyond_the_gpus_is_refused_and_one_of_them_becomes_the_current_one(two_gpus):
    with pytest.raises(InputError, match="'cuda:2' is not on this machine, whose last is cuda:1"):
        resolve_runtime("cuda:2")
    with pytest.raises(InputError, match="'cuda:256' is not on this machine, whose last is cuda:1"):
        resolve_runtime("cuda:256")  # which torch takes for cuda:0
    assert two_gpus == []
    assert resolve_runtime("cuda:1").device == "cuda:1"
    assert two_gpus == [1]
    assert resolve_runtime("auto").device == "cuda"


def test_what_earlier_work_has_let_go_of_is_free_for_the_next(monkeypatch):
    """A second stack on a GPU has the room of the first, which torch keeps and the driver calls taken."""
    found = {"mem_get_info": (5_000, 20_000), "memory_reserved": 12_000, "memory_allocated": 1_000}
    for name, value in found.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert (free_memory(CUDA), room_on(CUDA)) == (16_000, 8_000)


def test_matrix_products_on_cuda_are_of_the_precision_that_is_named(two_gpus):
    for precision in ("tf32", "fp32", "bf16"):
        runtime = resolve_runtime("cuda", precision)
        assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
        assert runtime.precision == precision
    with Runtime(precision="tf32").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_random_state_round_trip():
    seed_torch(3)
    torch.rand(5)
    state = capture_rng(CPU)
    first = torch.rand(4)
    restore_rng(state, CPU)
    assert torch.equal(torch.rand(4), first)


class TestGeneratorsOfGPUs:
    """Their module's two functions stand in for two GPUs."""

    @pytest.fixture(autouse=True)
    def states(self, monkeypatch):
        """The states of the generators, by number."""
        kept = {0: torch.tensor([10]), 1: torch.tensor([11])}
        module = types.SimpleNamespace(
            get_rng_state=lambda device: kept[device.index],
            set_rng_state=lambda state, device: kept.__setitem__(device.index, state),
        )
        monkeypatch.setattr(torch, "get_device_module", lambda device: module)
        return kept

    def test_that_of_the_own_device_is_kept_and_put_back_and_no_other(self, states):
        state = capture_rng(CUDA)
        assert set(state) == {"cpu", "cuda"} and state["cuda"].tolist() == [11]
        states[1] = torch.tensor([99])
        restore_rng(state, torch.device("cuda:1"))
        assert (states[0].item(), states[1].item()) == (10, 11)

    def test_a_run_of_a_gpu_does_not_go_on_elsewhere_exactly(self):
        with pytest.raises(ValueError, match="they are drawn on cuda, the run would go on with cpu"):
            restore_rng(capture_rng(CUDA), CPU)
        with pytest.raises(ValueError, match="there are none of cuda:1"):
            restore_rng(capture_rng(CPU), CUDA)

    def test_a_checkpoint_with_the_generators_of_more_gpus_gives_the_own_one(self, states):
        old = {"cpu": torch.get_rng_state(), "cuda": [torch.tensor([n]) for n in (20, 21, 22)]}
        restore_rng(old, CUDA)
        assert states[1].item() == 21
        restore_rng(old, CPU)  # a run on the CPU kept those of GPUs too
        with pytest.raises(ValueError, match="there are none of cuda:3"):
            restore_rng(old, torch.device("cuda:3"))


def test_scalars_and_numbers_are_read_in_their_order():
    wide = torch.tensor(0.1, dtype=torch.float64)
    assert read_scalars([torch.tensor(0.1), 2.0, wide]) == [torch.tensor(0.1).item(), 2.0, 0.1]
    assert read_scalars([1.5]) == [1.5] and read_scalars([]) == []


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr("chibit.core.runtime.ctypes.CDLL", lambda name: object())
    assert resolve_runtime("cpu").device == "cpu"
