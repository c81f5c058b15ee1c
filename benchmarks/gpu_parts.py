"""The parts of `gpu.py`: each gives rows of its table."""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from chibit.agents import AGENTS, DEFAULT_AGENT, Agent, make_agent
from chibit.core.errors import InputError
from chibit.core.runtime import Precision, Runtime, read_scalars, resolve_runtime
from chibit.data.dataset import TrajectoryDataset
from chibit.data.load import from_arrays
from chibit.data.samplers.placement import place
from chibit.data.samplers.stacked import StackedSampler
from chibit.data.spec import ObservationPart
from chibit.models.gpt import GPTConfig, GPTShape
from chibit.models.language_model import LanguageModel, LanguageModelConfig

STATE_DIM, ACT_DIM, NUM_ACTIONS, EPISODE = 11, 3, 4, 250
"""Hopper's sizes."""
TOLERANCE = 2e-3
"""Of losses in single precision after some steps, relative: sums in another order, amplified by Adam."""
PAPER_TOKENS = 80_000 * 65_536


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    steps: int
    num_steps: int
    batch_size: int
    context_length: int
    width: int
    layers: int
    stacks: tuple[int, ...]
    parity_steps: int
    episodes: int
    micro_batches: tuple[int, ...]
    vocabulary: int
    block: int
    matrix: int


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    value: str
    note: str = ""
    is_good: bool = True


@cache
def data(is_discrete: bool, num_steps: int) -> TrajectoryDataset:
    """Noise of Hopper's sizes, whose actions answer to states."""
    draw, folder = np.random.default_rng(0), Path(tempfile.mkdtemp(prefix="chibit-gpu-"))
    observations = draw.standard_normal((num_steps, STATE_DIM))
    actions: Any = np.tanh(observations[:, :ACT_DIM] + 0.1 * draw.standard_normal((num_steps, ACT_DIM)))
    if is_discrete:
        actions = observations[:, :NUM_ACTIONS].argmax(axis=1)
    ends = np.arange(num_steps) % EPISODE == EPISODE - 1
    return from_arrays(
        observations,
        actions,
        rewards=draw.standard_normal(num_steps) + 1.0,
        terminations=ends,
        next_observations=observations + draw.standard_normal((num_steps, STATE_DIM)),
        cache=folder,
    )


@cache
def instructed(num_steps: int) -> TrajectoryDataset:
    """Noise of BabyAI's sizes, whose episodes are for something that is said in words."""
    draw, folder = np.random.default_rng(0), Path(tempfile.mkdtemp(prefix="chibit-gpu-"))
    parts = (
        ObservationPart(path=("direction",), shape=(4,)),
        ObservationPart(path=("image",), shape=(7, 7, 3)),
    )
    made = from_arrays(
        draw.integers(0, 4, (num_steps, sum(part.width for part in parts))),
        draw.integers(0, NUM_ACTIONS, num_steps),
        rewards=np.ones(num_steps),
        terminations=np.arange(num_steps) % EPISODE == EPISODE - 1,
        cache=folder,
    )
    texts = [f"go to the {color} ball" for color in ("red", "green", "blue")]
    missions = np.array([texts[i % 3] for i in range(made.num_episodes)])
    return replace(made, spec=replace(made.spec, observation_parts=parts), missions=missions)


def is_sequence(name: str) -> bool:
    """Whether an agent's config is the sequence model's, or inherits it."""
    return issubclass(AGENTS[name].config, AGENTS[DEFAULT_AGENT].config)


def config_of(name: str, sizes: Sizes, **settings: Any) -> Any:
    """An agent's config: a sequence model at the sizes asked for, others with their own."""
    config = AGENTS[name].config
    if not is_sequence(name):
        small: dict[str, Any] = {"batch_size": sizes.batch_size} if sizes.width < 128 else {}
        return config(**{**small, **settings})
    shape = GPTShape(n_layer=sizes.layers, n_embd=sizes.width)
    usual = {"gpt": shape, "batch_size": sizes.batch_size, "context_length": sizes.context_length}
    return config(**{**usual, "warmup_steps": 10, **settings})


def made(config: Any, sizes: Sizes, runtime: Runtime, seed: int = 0) -> tuple[Agent, Any]:
    """An agent and its sampler, drawn from the same numbers on every device."""
    kind = config.agent
    dataset = instructed(sizes.num_steps) if kind == "text" else data(kind in DISCRETE, sizes.num_steps)
    torch.manual_seed(seed)
    agent = make_agent(config, dataset.spec, runtime)
    return agent, agent.sampler(agent.prepare(dataset), np.random.default_rng(seed))


DISCRETE = ("discrete_bc", "discrete_cql", "qr_dqn", "rem")


class DrawnOnHost(TorchFunctionMode):
    """Random numbers come from the CPU's generator, whatever the device."""

    _LIKE = (torch.randn_like, torch.rand_like)
    _NEW = (torch.randn, torch.rand, torch.randint)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._LIKE and args[0].device.type != "cpu":
            return func(torch.empty(args[0].shape, dtype=args[0].dtype), **kwargs).to(args[0].device)
        if func in self._NEW and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


def losses(config: Any, sizes: Sizes, runtime: Runtime) -> list[dict[str, float]]:
    """Metrics of the first steps."""
    agent, sampler = made(config, sizes, runtime)
    torch.manual_seed(1)
    with DrawnOnHost():
        steps = [agent.update(sampler.sample()) for _ in range(sizes.parity_steps)]
    agent.check()
    return [dict(zip(step, read_scalars(step.values()), strict=True)) for step in steps]


def parity(device: str, sizes: Sizes) -> Iterator[Row]:
    """Largest relative difference of any metric of any of the first steps, agent by agent."""
    forms: list[tuple[str, dict[str, Any]]] = [
        (name, {"dropout": 0.2, "dropout_draws": "counter"} if is_sequence(name) else {}) for name in AGENTS
    ]
    for name, settings in [(DEFAULT_AGENT, {"dropout": 0.0}), *forms]:
        config = config_of(name, sizes, **settings)
        what = f"{name} {', '.join(f'{k} {v}' for k, v in settings.items())}".strip()
        with contextlib.ExitStack() as stack:
            if not settings:
                stack.enter_context(mock.patch.object(torch.nn.functional, "dropout", lambda x, *_: x))
            try:
                here = losses(config, sizes, Runtime())
            except InputError as error:
                yield Row(what, "", f"left out: {error}")
                continue
            there = losses(config, sizes, resolve_runtime(device))
        worst, where = max(
            (abs(value - other[key]) / max(1e-3, abs(value)), key)
            for step, other in zip(here, there, strict=True)
            for key, value in step.items()
        )
        yield Row(what, f"{worst:.1e}", f"{where}, {len(here)} steps", is_good=worst < TOLERANCE)


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if torch.device(device).type in ("cuda", "mps"):
        torch.accelerator.synchronize()


def timed(step: Callable[[], Any], device: str, number: int) -> float:
    """Median seconds of a step, over five rounds after one to warm up."""
    step()
    wait(device)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(max(1, number // 5)):
            step()
        wait(device)
        times.append((time.perf_counter() - started) / max(1, number // 5))
    return statistics.median(times)


def precisions(device: str) -> tuple[Precision, ...]:
    """Those that a device has."""
    kind = torch.device(device).type
    return {"cuda": ("fp32", "tf32", "bf16"), "cpu": ("fp32", "bf16")}.get(kind, ("fp32",))  # type: ignore


def steps(device: str, sizes: Sizes) -> Iterator[Row]:
    """A gradient step with its batch, of runs alone."""
    asked = [("dt", precision) for precision in precisions(device)]
    asked += [(name, "fp32") for name in ("bc", "td3_bc", "iql", "cql")]  # type: ignore[misc]
    for name, precision in asked:
        runtime = resolve_runtime(device, precision)
        agent, sampler = made(config_of(name, sizes), sizes, runtime)
        sampler = place(sampler, runtime.torch_device)
        seconds = timed(lambda: agent.update(sampler.sample()), device, sizes.steps)  # noqa: B023
        agent.check()
        yield Row(
            f"{name} {precision}", f"{1e3 * seconds:.2f} ms", f"100,000 in {1e5 * seconds / 60:.1f} min"
        )


def stacks(device: str, sizes: Sizes) -> Iterator[Row]:
    """A step of so many runs at once, with their batches."""
    for precision in precisions(device):
        runtime = resolve_runtime(device, precision)
        for number in sizes.stacks:
            pairs = [made(config_of("dt", sizes), sizes, runtime, seed) for seed in range(number)]
            stack = type(pairs[0][0]).stack([agent for agent, _ in pairs])
            sampler = StackedSampler([sampler for _, sampler in pairs], runtime.torch_device)
            before = begin_memory(device)
            seconds = timed(lambda: stack.update(sampler.sample()), device, sizes.steps)  # noqa: B023
            stack.failures()
            used = f", {(torch.cuda.max_memory_allocated() - before) / 1e9:.1f} GB more" if before else ""
            note = f"{1e3 * seconds / number:.3f} ms a run{used}; 100,000 in {1e5 * seconds / 60:.1f} min"
            yield Row(f"{number} runs {precision}", f"{1e3 * seconds:.2f} ms", note)


def begin_memory(device: str) -> int:
    """Count the most bytes that tensors take on a CUDA device from now on; those that they take, else 0."""
    if torch.device(device).type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def sampler(device: str, sizes: Sizes) -> Iterator[Row]:
    """Batches of windows and of transitions, gathered on the host and where the device wants them."""
    target = torch.device(device)
    for name, where in (("dt", "host"), ("dt", device), ("td3_bc", "host"), ("td3_bc", device)):
        _, drawn = made(config_of(name, sizes), sizes, Runtime())
        source = drawn if where == "host" else place(drawn, target)
        seconds = timed(lambda: source.sample().to(target), device, sizes.steps)  # noqa: B023
        kind = "windows" if name == "dt" else "transitions"
        yield Row(f"{kind}, gathered on {where}", f"{1e6 * seconds:.0f} us", "a batch, on the device")


def evaluation(device: str, sizes: Sizes) -> Iterator[Row]:
    """A lockstep of episodes without their physics: what the model takes of an evaluation."""
    for number in sizes.stacks[:2]:
        runtime = resolve_runtime(device)
        agents = [made(config_of("dt", sizes), sizes, runtime, seed)[0] for seed in range(number)]
        policy = type(agents[0]).stack(agents).policy() if number > 1 else agents[0].policy((0.0,))
        episodes = number * sizes.episodes
        if number > 1:
            policy.seat(np.repeat(np.arange(number), sizes.episodes))
        policy.reset(episodes, target_return=np.zeros(episodes))
        seen, rewards, dones = np.zeros((episodes, STATE_DIM)), np.zeros(episodes), np.zeros(episodes, bool)

        def step() -> None:
            policy.act(seen)  # noqa: B023
            policy.observe(rewards, dones)  # noqa: B023

        for _ in range(sizes.context_length):
            step()
        seconds = timed(step, device, sizes.steps)
        yield Row(f"{number} runs x {sizes.episodes} episodes", f"{1e3 * seconds:.2f} ms", "a step of all")


def pretraining(device: str, sizes: Sizes) -> Iterator[Row]:
    """Tokens a second of ChibiT's recipe by micro-batch, and their share of what matrix products reach."""
    precision: Precision = "bf16" if "bf16" in precisions(device) else "fp32"
    runtime = resolve_runtime(device, precision)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    square = torch.randn(sizes.matrix, sizes.matrix).to(kind).to(device)
    peak = 2 * sizes.matrix**3 / timed(lambda: square @ square, device, 20)
    yield Row(
        f"matrix products of {sizes.matrix}, {precision}", f"{peak / 1e12:.3g} TFLOP/s", "the peak below"
    )
    shape = GPTConfig(n_layer=sizes.layers, n_embd=sizes.width)
    config = LanguageModelConfig(gpt=shape, vocab_size=sizes.vocabulary, n_positions=sizes.block)
    model = LanguageModel(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    inner = sizes.layers * (12 * sizes.width**2 + sizes.block * sizes.width) + sizes.width * sizes.vocabulary
    for tokens in sizes.micro_batches:
        ids = torch.randint(sizes.vocabulary, (tokens // sizes.block, sizes.block + 1)).to(device)

        def step() -> None:
            optimizer.zero_grad()
            with runtime.autocast():
                loss = model.loss(ids, chunk=8_192)  # noqa: B023
            loss.backward()
            optimizer.step()

        seconds = timed(step, device, min(sizes.steps, 20))
        rate = tokens / seconds
        share, minutes = 6 * inner * rate / peak, PAPER_TOKENS / rate / 60
        note = f"{share:.0%} of the peak; the paper's 5.2 billion in {minutes:.0f} min"
        yield Row(f"micro-batch of {tokens:,} tokens, {precision}", f"{rate:,.0f} tokens/s", note)


def peers(device: str, sizes: Sizes) -> Iterator[Row]:
    """A step of others' Decision Transformers, at the full size; timed on what computes for them too."""
    import training_step_worker as worker

    if sizes.width < worker.WIDTH:
        small = {"BATCH": sizes.batch_size, "CONTEXT": sizes.context_length, "WIDTH": sizes.width}
        for name, value in {**small, "LAYERS": sizes.layers}.items():
            setattr(worker, name, value)
    if torch.device(device).type not in ("cuda", "cpu"):
        yield Row("transformers, d3rlpy", "", f"not tried on {device}")
        return
    asked: list[tuple[str, Callable[[], Callable[[], object]]]] = [
        ("transformers", lambda: worker.transformers_step(device)),
        ("d3rlpy", lambda: worker.d3rlpy_step("cuda:0" if device == "cuda" else f"{device}:0")),
        ("d3rlpy, compile_graph", lambda: worker.d3rlpy_step("cuda:0", compile_graph=True)),
    ]
    for name, make in asked:
        if importlib.util.find_spec(name.partition(",")[0]) is None:
            yield Row(name, "", "not installed")
        elif "compile_graph" in name and device == "cpu":
            yield Row(name, "", "needs a GPU")
        else:
            yield Row(
                name, f"{1e3 * timed(make(), device, sizes.steps):.2f} ms", "fp32, a batch that lies there"
            )
