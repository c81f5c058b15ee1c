import pytest
import torch

from chibit.core.errors import InputError
from chibit.core.runtime import capture_rng, resolve_runtime, restore_rng, seed_torch


def test_bf16_runs_matrix_products_in_bfloat16():
    runtime = resolve_runtime("cpu", "bf16")
    with runtime.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with resolve_runtime("cpu", "fp32").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    "arguments",
    [("tpu", "fp32", 1), ("cuda:9", "fp32", 1), ("cpu", "fp16", 1), ("cpu", "fp32", 0), ("meta", "fp32", 1)],
)
def test_what_this_machine_cannot_do_is_refused(arguments):
    with pytest.raises(InputError):
        resolve_runtime(*arguments)


def test_random_state_round_trip():
    seed_torch(3)
    torch.rand(5)
    state = capture_rng()
    first = torch.rand(4)
    restore_rng(state)
    assert torch.equal(torch.rand(4), first)


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr("chibit.core.runtime.ctypes.CDLL", lambda name: object())
    assert resolve_runtime("cpu").device == "cpu"
