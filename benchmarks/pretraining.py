"""Speed of language-model pre-training against transformers' GPT2LMHeadModel, and a full step's memory.

    python benchmarks/pretraining.py [--rounds 5] [--full-step]

All sides have ChibiT's shape (three blocks of width 128, 50,257 words, 1,024 positions, ReLU, dropout
0.1) and take gradient steps of eight blocks of 1,024 random tokens with AdamW: transformers two blocks at a
time, as its logits fill 0.4 GB for each two, we eight. Rounds of the sides are interleaved in one run, one
thread each; a ratio is the median over rounds of peer seconds / our seconds, by CPU time, which other load
on the machine disturbs least. --full-step also takes one step of 65,536 tokens and prints its peak memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

BLOCK, ROWS = 1024, 8
TOKENS = BLOCK * ROWS
ROWS_AT_A_TIME = {"transformers": 2, "chibit": 8}
SIDES = ("transformers-fp32", "transformers-bf16", "chibit-fp32", "chibit-bf16")
GOAL = 3.0
FULL_STEP_TOKENS, MEMORY_GOAL = 65_536, 2.0


def make_step(side: str):
    """A function that takes one gradient step of micro-batches (rows, tokens + 1) of ids."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    library, precision = side.split("-")
    if library == "chibit":
        from chibit.models.language_model import LanguageModel, LanguageModelConfig

        model = LanguageModel(LanguageModelConfig())
        loss_of = model.loss
    else:
        from transformers import GPT2Config, GPT2LMHeadModel

        model = GPT2LMHeadModel(
            GPT2Config(n_embd=128, n_layer=3, n_head=1, activation_function="relu", use_cache=False)
        )

        def loss_of(ids):
            return model(input_ids=ids[:, :-1], labels=ids[:, :-1]).loss

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

    def step(batches):
        for ids in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = loss_of(ids) / len(batches)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def work(side: str) -> None:
    """A side's process: a step for each line read, its CPU seconds for each line written."""
    import torch

    step = make_step(side)
    batches = torch.randint(0, 50_257, (ROWS, BLOCK + 1)).split(ROWS_AT_A_TIME[side.split("-")[0]])
    step(batches)
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.process_time()
        step(batches)
        print("seconds", time.process_time() - started, flush=True)


def full_step() -> None:
    """One step of the paper's batch in micro-batches of 8,192 tokens, in bfloat16; prints its peak memory."""
    import torch

    step = make_step("chibit-bf16")
    step(torch.randint(0, 50_257, (FULL_STEP_TOKENS // 8192, 8, BLOCK + 1)))
    print("gigabytes", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, flush=True)


def start(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, __file__, *arguments], **pipes, text=True, env=environment)


def answer(process: subprocess.Popen, word: str) -> list[float]:
    for line in process.stdout:
        if line.startswith(word):
            return [float(number) for number in line.split()[1:]]
    raise RuntimeError(f"worker ended with code {process.wait()}; run it by hand to see why")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full-step", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker == "full-step":
        return full_step()
    if arguments.worker:
        return work(arguments.worker)
    workers = {side: start("--worker", side) for side in SIDES}
    for worker in workers.values():
        answer(worker, "ready")
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side, worker in workers.items():
            worker.stdin.write("step\n")
            worker.stdin.flush()
            seconds[side] += answer(worker, "seconds")
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    for side in SIDES:
        print(f"{side:18s} {TOKENS / statistics.median(seconds[side]):7.0f} tokens/s of one core")
    for side in SIDES[2:]:
        for peer in SIDES[:2]:
            ratio = statistics.median(p / s for p, s in zip(seconds[peer], seconds[side], strict=True))
            print(f"{side} against {peer}: {ratio:.2f} times as fast")
    best = statistics.median(
        p / s for p, s in zip(seconds["transformers-fp32"], seconds["chibit-bf16"], strict=True)
    )
    print(f"goal: at least {GOAL:g} times transformers-fp32, {'met' if best >= GOAL else 'NOT met'}")
    if arguments.full_step:
        gigabytes = answer(start("--worker", "full-step"), "gigabytes")[0]
        met = "met" if gigabytes <= MEMORY_GOAL else "NOT met"
        print(f"step of {FULL_STEP_TOKENS:,} tokens: {gigabytes:.2f} GB (goal {MEMORY_GOAL:g} GB, {met})")
    return None


if __name__ == "__main__":
    main()
