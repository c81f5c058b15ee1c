"""Turn over every single bit of a small checkpoint, one at a time, and see whether loading notices."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from chibit.core.checkpoint import CheckpointSaver, load_checkpoint
from chibit.core.errors import DamagedFileError


def flip_campaign(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Flip bits of each file of a checkpoint.

    Returns:
        For each file: its bits, those whose flip was noticed and refused, and for the weights those that
        safetensors alone would have noticed (0 elsewhere).
    """
    with CheckpointSaver(folder) as saver:
        saver.save(1, {"w": torch.arange(6.0)}, {"step": 1, "m": torch.ones(2)})
    table = {}
    for path in sorted(folder.glob("*/*")):
        content = path.read_bytes()
        noticed = by_safetensors = 0
        with open(path, "r+b", buffering=0) as file:
            for bit in range(8 * len(content)):
                changed = bytes([content[bit // 8] ^ (1 << bit % 8)])
                file.seek(bit // 8)
                file.write(changed)
                noticed += _is_noticed(folder)
                if path.suffix == ".safetensors":
                    by_safetensors += _safetensors_notices(path.read_bytes())
                file.seek(bit // 8)
                file.write(content[bit // 8 : bit // 8 + 1])
        table[path.name] = (8 * len(content), noticed, by_safetensors)
    assert load_checkpoint(folder, 1) is not None
    return table


def _is_noticed(folder: Path) -> bool:
    try:
        load_checkpoint(folder, 1)
    except DamagedFileError:
        return True
    return False


def _safetensors_notices(content: bytes) -> bool:
    try:
        return sorted(safetensors.torch.load(content)) != ["w"]
    except SafetensorError:
        return True
