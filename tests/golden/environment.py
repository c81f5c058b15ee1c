"""What the bits of a computation depend on, beside the code."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import torch


def fingerprint() -> str:
    """Versions and kind of processor under which equal code gives equal bits.

    The math library chooses its kernels by the processor's maker and model, not by its instructions alone.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    known = f"torch {torch.__version__}, numpy {np.__version__}, {platform.machine()} {capability}"
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    kinds = [
        line.split(":")[1].strip()
        for line in lines
        if line.startswith(("vendor_id", "cpu family", "model\t"))
    ]
    return ", ".join([known, *kinds[:3]])
