import subprocess
import sys
from pathlib import Path

import pytest

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
