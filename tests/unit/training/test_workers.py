"""Processes that torchrun has started: each with a GPU of its own, talking in the way its device allows."""

import pytest
import torch
import torch.distributed as dist

from chibit.core.errors import InputError
from chibit.training.workers import Workers


@pytest.fixture
def torchrun(monkeypatch):
    """The third of four processes."""
    for name, value in {"RANK": 2, "WORLD_SIZE": 4, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("asked", "has_cuda", "device"),
    [
        ("auto", True, "cuda:1"),
        ("auto", False, "auto"),
        ("cuda", True, "cuda:1"),
        ("cuda:0", True, "cuda:0"),
        ("cpu", True, "cpu"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(torchrun, monkeypatch, asked, has_cuda, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    workers = Workers.of_torchrun()
    assert (workers.rank, workers.size, workers.local_rank) == (2, 4, 1)
    assert workers.device(asked) == device
    assert Workers().device(asked) == asked


@pytest.mark.parametrize(("device", "backend"), [("cuda:1", "cpu:gloo,cuda:nccl"), ("cpu", "gloo")])
def test_what_lies_on_gpus_goes_through_nccl_and_the_rest_through_gloo(
    torchrun, monkeypatch, device, backend
):
    begun, ended = [], []
    monkeypatch.setattr(dist, "init_process_group", begun.append)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: ended.append(True))
    with Workers.of_torchrun().joined(torch.device(device)):
        assert begun == [backend] and not ended
    assert ended
    with Workers().joined(torch.device(device)):
        assert len(begun) == 1


def test_variables_that_are_no_numbers_are_refused(torchrun, monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(InputError, match="torchrun's variables: got .*'first'.*; start with torchrun"):
        Workers.of_torchrun()
