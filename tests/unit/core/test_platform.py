import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chibit.core import memory, platform
from chibit.core.errors import ResourceError
from chibit.core.memory import limited_memory, memory_budget

_MEASURE = """
import ctypes, gc
from chibit.core.platform import give_memory_back

def megabytes():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

class Circle:
    def __init__(self):
        self.me, self.held = self, bytearray(100_000)

gc.disable()
circles = [Circle() for _ in range(2_000)]
last = bytearray(100_000)  # in use, behind all of them
before = megabytes()
del circles
freed = megabytes()
give_memory_back()
print(before - freed, before - megabytes())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_what_nobody_uses_goes_back_to_the_system():
    """200 MB in circles of references: they stay after the last name for them is gone, and go when asked."""
    done = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True)
    by_itself, asked = map(float, done.stdout.split())
    assert by_itself < 20 and asked > 150


def place_control_groups(own, files, root, monkeypatch):
    """This process's groups, as the kernel lists them, and files below where they are mounted."""
    read = platform.kernel_table

    def table(path):
        return own.splitlines() if path == "/proc/self/cgroup" else read(path)

    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    monkeypatch.setattr(platform, "kernel_table", table)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"memory.max": "4000", "memory.stat": "anon 1500\nfile 900"}, [(4000, 1500)]),
        ("0::/", {"memory.max": "max"}, []),
        (
            "0::/jobs/7",  # of a batch system: the tighter one may be that of a group around it
            {"jobs/7/memory.max": "5000", "jobs/memory.max": "3000", "jobs/memory.stat": "anon 10"},
            [(5000, 0), (3000, 10)],
        ),
        (
            "4:memory:/docker/ab\n2:cpu:/docker/ab\n0::/",  # whose own group a container sees at the root
            {"memory/memory.limit_in_bytes": "6000", "memory/memory.stat": "total_cache 9\ntotal_rss 70"},
            [(6000, 70)],
        ),
    ],
)
def test_a_container_or_a_job_may_have_less_memory_than_its_machine(
    own, files, expected, tmp_path, monkeypatch
):
    place_control_groups(own, files, tmp_path, monkeypatch)
    assert platform.memory_limits(tmp_path) == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {}, []),
        ("0::/", {"cpu.max": "max 100000"}, []),
        ("0::/jobs/7", {"jobs/7/cpu.max": "150000 100000", "jobs/cpu.max": "800000 100000"}, [2, 8]),
        (
            "3:cpu,cpuacct:/docker/ab\n2:cpuset:/docker/ab\n0::/",
            {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
            [3],
        ),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
    ],
)
def test_a_container_or_a_job_may_have_less_time_than_its_machines_cores(
    own, files, expected, tmp_path, monkeypatch
):
    place_control_groups(own, files, tmp_path, monkeypatch)
    assert platform.core_limits(tmp_path) == expected


def test_a_limit_of_time_decides_how_many_cores_there_are(monkeypatch):
    monkeypatch.setattr(platform, "core_limits", lambda: [1, 10**6])
    assert platform.available_cores() == 1
    monkeypatch.setattr(platform, "core_limits", list)
    assert platform.available_cores() >= 1


def test_a_limit_of_memory_decides_what_is_refused_and_what_may_be_allocated(monkeypatch):
    assert memory_budget() > 1 << 30
    monkeypatch.setattr(platform, "memory_limits", lambda: [(2 << 30, 0)])
    assert memory_budget() == 1 << 30
    monkeypatch.setattr(memory, "memory_limits", lambda: [(2 << 30, (2 << 30) - (64 << 20))])
    with pytest.raises(ResourceError, match="out of memory"), limited_memory("cpu"):
        np.zeros(1 << 30, np.uint8)
    monkeypatch.setattr(memory, "memory_limits", list)
    with limited_memory("cpu"):
        np.zeros(1 << 30, np.uint8)
