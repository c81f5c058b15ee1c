"""What a GPU gives: the CPU's numbers, and how fast; a command of less than ten minutes, and a table.

    python benchmarks/gpu.py [--device cuda] [--out table.md] [--small]

It compares losses of every agent with the CPU's over some steps, in float32 without TF32, on the same batches
and random numbers; then it times a step alone and in stacks of 1, 8 and 54 runs, the sampler, the policy in
evaluation, pre-training, and two peers where they are installed: the model of transformers, trained as Chen
et al. train, and d3rlpy with compile_graph. Parts that a machine cannot do are in the table with the reason,
and the exit code is 1 where losses differ.

`--small` takes tiny sizes and few steps, so that the program itself can be tried, also on `--device cpu` and
on `--device pretend` (the device of the tests, on which nothing is timed truly).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent))

import gpu_parts
from gpu_parts import Row, Sizes

SMALL = Sizes(
    steps=2, num_steps=400, batch_size=4, context_length=3, width=16, layers=1, stacks=(1, 3), parity_steps=3,
    episodes=2, micro_batches=(64, 128), vocabulary=50, block=16, matrix=64,
)  # fmt: skip
FULL = Sizes(
    steps=50, num_steps=100_000, batch_size=64, context_length=20, width=128, layers=3, stacks=(1, 8, 54),
    parity_steps=20, episodes=20, micro_batches=(8_192, 65_536), vocabulary=50_257, block=1_024, matrix=8_192,
)  # fmt: skip
PARTS: dict[str, Callable[[str, Sizes], Iterator[Row]]] = {
    "parity of losses with the CPU": gpu_parts.parity,
    "a step": gpu_parts.steps,
    "a step of a stack": gpu_parts.stacks,
    "sampler": gpu_parts.sampler,
    "evaluation": gpu_parts.evaluation,
    "pre-training": gpu_parts.pretraining,
    "peers": gpu_parts.peers,
}


def measure(device: str, sizes: Sizes, seconds: float) -> tuple[list[tuple[str, Row]], bool]:
    """Rows by part, and whether no loss differs; after so many seconds no part begins."""
    rows: list[tuple[str, Row]] = []
    started = time.perf_counter()
    for name, part in PARTS.items():
        if time.perf_counter() - started > seconds:
            rows.append((name, Row("left out", "", "no time was left")))
            continue
        try:
            for row in part(device, sizes):
                rows.append((name, row))
                print(f"{name}: {row.what}: {row.value} {row.note}", flush=True)
        except Exception as error:  # what one part lacks, the others need not
            note = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            rows.append((name, Row("failed", "", note, is_good=name != next(iter(PARTS)))))
            print(f"{name}: failed: {note}", flush=True)
    return rows, all(row.is_good for _, row in rows)


def table(device: str, rows: list[tuple[str, Row]], seconds: float) -> str:
    """The rows in Markdown."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    lines = [f"{name}, torch {torch.__version__}, {seconds:.0f} s in all\n"]
    lines += ["| part | what | value | note |", "|---|---|---|---|"]
    lines += [f"| {part} | {row.what} | {row.value} | {row.note} |" for part, row in rows]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def at_hand(device: str) -> Iterator[None]:
    """Make the device of the tests known, where it is asked for."""
    if device != "pretend":
        yield
        return
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "device"))
    from pretend_device import pretend_device

    with pretend_device():
        yield


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, mps, cpu or pretend")
    parser.add_argument("--out", type=Path, help="file for the table; it is printed in any case")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the program")
    parser.add_argument("--seconds", type=float, default=480.0, help="after which no part begins")
    arguments = parser.parse_args(argv)
    from chibit.core.errors import UserError
    from chibit.core.runtime import resolve_runtime

    started = time.perf_counter()
    with at_hand(arguments.device):
        try:
            resolve_runtime(arguments.device)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        rows, is_good = measure(arguments.device, SMALL if arguments.small else FULL, arguments.seconds)
    text = table(arguments.device, rows, time.perf_counter() - started)
    print(f"\n{text}")
    if arguments.out is not None:
        arguments.out.write_text(text)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
