"""What the similarity loss costs: each form as a share of a training step, the released form against
its closed form.

    python benchmarks/similarity.py [--rounds 15]

One thread, CPU time, medians, all sides interleaved in one process. The step is that of
`training_step_worker.py` in float32; tokens are (64, 60, 128), with 1000 centers. The released code's
own way, which builds all B x T x C x D products, is run on an eighth of the batch and multiplied by
eight: the whole takes 2 GB. Also times K-means at GPT-2's size, 50,257 x 768 into 1,000 clusters.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from training_step_worker import chibit_step

from chibit.core.runtime import resolve_runtime
from chibit.losses.similarity import similarity_loss, spherical_kmeans

BATCH, TOKENS, WIDTH, CENTERS = 64, 60, 128, 1000
SHARE = 8
GOAL = 0.12


def as_released(tokens: Tensor, centers: Tensor) -> Tensor:
    """The largest product over centers, coordinate by coordinate, from the full tensor of products."""
    directions, words = F.normalize(tokens, dim=-1), F.normalize(centers, dim=-1)
    return -(directions[:, :, None] * words).amax(dim=2).mean()


def with_gradient(loss: Callable[[Tensor], Tensor], tokens: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        inputs = tokens.clone().requires_grad_()
        return torch.autograd.grad(loss(inputs), inputs)[0]

    return run


def milliseconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return 1e3 * (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    resolve_runtime("cpu")
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randn(BATCH, TOKENS, WIDTH, generator=draw)
    centers = torch.randn(CENTERS, WIDTH, generator=draw)
    mask = torch.ones(BATCH, TOKENS, dtype=torch.bool)
    part = tokens[: BATCH // SHARE]
    sides: dict[str, Callable[[], object]] = {
        form: with_gradient(lambda x, form=form: similarity_loss(x, centers, mask, form), tokens)
        for form in ("mean_max_cosine", "mean_pool", "released")
    }
    sides["released, all products"] = with_gradient(lambda x: as_released(x, centers), part)
    sides["training step without it"] = chibit_step("fp32")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(rounds):
        for name, run in sides.items():
            times[name].append(milliseconds(run) * (SHARE if "all products" in name else 1))
    step = times["training step without it"]
    print("| | CPU ms, forward and backward | share of a step |\n|---|---|---|")
    for name, values in times.items():
        share = statistics.median(v / s for v, s in zip(values, step, strict=True))
        print(f"| {name} | {statistics.median(values):.1f} | {share:.1%} |")
    ratio = statistics.median(
        a / b for a, b in zip(times["released, all products"], times["released"], strict=True)
    )
    print(f"\nclosed form of `released`: {ratio:.0f} times as fast")
    print(f"goal for `mean_max_cosine`: {GOAL:.0%} of a step")
    table = torch.randn(50_257, 768, generator=draw)
    seconds = milliseconds(lambda: spherical_kmeans(table, CENTERS)) / 1e3
    print(f"K-means of 50,257 x 768 into 1,000: {seconds:.1f} s")


if __name__ == "__main__":
    main()
