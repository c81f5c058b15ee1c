"""Many runs of the sequence model as one program: what differs between them is numbers, not shape.

The loss of one agent becomes that of R by `torch.func.vmap` over the agents' own modules: linear maps become
batched matrix products, whatever the initializer, the tuning and the losses. Trainable parameters lie in one
(R, P) tensor, so that gradients come as one, and clipping and AdamW are a few operations for all runs.

Dimensions: R runs · P trainable numbers of a run · B batch · K context in timesteps · S state_dim · A
act_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from chibit.agents.dt.agent import DecisionTransformer
from chibit.agents.dt.stack_policy import StackedSequencePolicy
from chibit.agents.guard import require_finite
from chibit.agents.stack import AgentStack, as_stack
from chibit.core.errors import DivergenceError, InputError
from chibit.core.runtime import evaluating
from chibit.data.samplers.windows import SequenceBatch
from chibit.models.dropout import Counted, Streams, drawing
from chibit.models.gpt import GPT

_EPSILON, _CLIP_EPSILON = 1e-8, 1e-6
"""Of torch's AdamW and `clip_grad_norm_`."""
Named = dict[str, Tensor]


class _Called(nn.Module):
    """An agent's modules, under the names that they have here, around a function that calls them."""

    def __init__(self, modules: nn.Module) -> None:
        super().__init__()
        self.modules_of_agent = modules

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


class SequenceStack(AgentStack):
    """R Decision Transformers; see the module."""

    def __init__(self, agents: Sequence[DecisionTransformer]) -> None:
        """Take over the state of agents.

        Raises:
            InputError: naming what they differ in, where that is a matter of shape.
        """
        first = agents[0]
        for place, agent in enumerate(agents):
            obstacle = stack_obstacle(agent, first)
            if obstacle is not None:
                raise InputError(f"stack: run {place}: {obstacle}")
        self.agents: list[Any] = list(agents)
        self.step, self.runtime, self.device = first.step, first.runtime, first.runtime.torch_device
        self._first, self._called = first, _Called(first.modules())
        trained = [name for name, p in first.modules().named_parameters() if p.requires_grad]
        shapes = [dict(first.modules().named_parameters())[name].shape for name in trained]
        self._names, self._shapes, self._sizes = trained, shapes, [math.prod(shape) for shape in shapes]
        parameters = [[dict(a.modules().named_parameters())[name] for name in trained] for a in agents]
        self._weights = _rows(parameters).requires_grad_(True)
        self._mean, self._square = (_moments(agents, parameters, key) for key in ("exp_avg", "exp_avg_sq"))
        self._fixed = as_stack([_fixed(agent) for agent in agents])
        groups = [_by_parameter(agent, own) for agent, own in zip(agents, parameters, strict=True)]
        self._rates, self._decay = (self._columns([[g[i] for g in own] for own in groups]) for i in (0, 1))
        self._clip = self._vector([agent.config.grad_clip for agent in agents])
        self._similarity = self._vector([agent.config.similarity_weight for agent in agents])
        centers = [agent.centers for agent in agents if agent.centers is not None]
        self._centers = torch.stack(centers) if centers else None
        self._places = torch.arange(len(agents), device=self.device)
        self._failed = torch.zeros(len(agents), dtype=torch.bool, device=self.device)
        self._seen: list[tuple[int, Tensor, Tensor, Tensor]] = []
        seeds = [agent.draws.seeds for agent in agents if agent.draws is not None]
        self._draws: Counted | Streams = (
            Counted(torch.cat(seeds)) if seeds else Streams(_generators(len(agents)))
        )

    def begin_draws(self, states: Sequence[Tensor]) -> None:
        """See `AgentStack`; draws that are counted go on by themselves."""
        if isinstance(self._draws, Streams):
            for generator, state in zip(self._draws.generators, states, strict=True):
                generator.set_state(state)

    def rng_states(self) -> list[Tensor | None]:
        """See `AgentStack`."""
        if isinstance(self._draws, Streams):
            return [generator.get_state() for generator in self._draws.generators]
        return [None] * len(self.agents)

    def update(self, batch: SequenceBatch) -> Mapping[str, Tensor | Sequence[float]]:
        """See `AgentStack`: `DecisionTransformer.update` of every run."""
        self._first.step = self.step
        self._first.modules().train()
        if isinstance(self._draws, Counted):
            self._draws.begin(self.step)
        columns = {name: column for name, column in vars(batch).items() if name != "rows"}
        similarity = self._similarity * self._first.decays()[0]
        total, losses = vmap(self._loss, (0, 0, 0, 0, 0, None if self._centers is None else 0))(
            self._weights, self._fixed, columns, similarity, self._places, self._centers
        )
        (gradient,) = torch.autograd.grad(total.sum(), self._weights)
        total = total.detach()
        norm = torch.linalg.vector_norm(gradient, dim=1)
        self._failed |= ~(total.isfinite() & norm.isfinite())
        self._seen.append((self.step, batch.rows, total, norm))
        factor = self._first.learning_rate_factor()
        self._descend(gradient, norm, factor)
        self.step += 1
        metrics: dict[str, Tensor | Sequence[float]] = {"train/loss": total}
        metrics |= {f"train/{name}_loss": loss.detach() for name, loss in losses.items()}
        metrics["train/grad_norm"] = norm
        metrics["train/learning_rate"] = [agent.config.learning_rate * factor for agent in self.agents]
        return metrics

    def _loss(
        self,
        weights: Tensor,
        fixed: Named,
        columns: Named,
        similarity: Tensor,
        place: Tensor,
        centers: Tensor | None,
    ) -> tuple[Tensor, Named]:
        """Eq. 9 of one run, of (P,) weights."""
        batch = SequenceBatch(**columns, rows=place)  # the loss does not look at rows
        with drawing(self._draws, place):
            losses = self._with(weights, fixed, lambda: self._first.losses(batch, centers))
        shares = {"similarity": similarity}
        total = torch.stack([loss * shares.get(name, 1.0) for name, loss in losses.items()]).sum()
        return total, losses

    def _with(self, weights: Tensor, fixed: Named, function: Callable[[], Any]) -> Any:
        """A function of the first agent's modules, with the parameters of a run in their place."""
        parts = weights.split_with_sizes(self._sizes)
        named = {name: part.view(shape) for name, part, shape in self._parts(parts)}
        tensors = {f"modules_of_agent.{name}": value for name, value in {**named, **fixed}.items()}
        return functional_call(self._called, tensors, (function,))

    def _parts(self, parts: Sequence[Tensor]) -> Any:
        return zip(self._names, parts, self._shapes, strict=True)

    @torch.no_grad()
    def _descend(self, gradient: Tensor, norm: Tensor, factor: float) -> None:
        """One step of AdamW, by clipped gradients (R, P); runs that failed stand still."""
        ok = (~self._failed).to(norm.dtype)[:, None]  # (R, 1)
        scale = (self._clip / (norm + _CLIP_EPSILON)).clamp(max=1.0)[:, None]
        gradient = torch.where(self._failed[:, None], 0.0, gradient * scale)
        (beta, other), count = self._first.config.adam_betas, self.step + 1
        self._mean.lerp_(gradient, (1.0 - beta) * ok)
        self._square.lerp_(gradient.square_(), (1.0 - other) * ok)
        spread = self._square.sqrt().div_(math.sqrt(1.0 - other**count)).add_(_EPSILON)
        rates = self._rates * (ok * factor)
        step = (self._mean / spread).mul_(rates / (1.0 - beta**count))
        self._weights.mul_(1.0 - rates * self._decay).sub_(step)

    def failures(self) -> dict[int, DivergenceError]:
        """See `AgentStack`."""
        seen, self._seen = self._seen, []
        return {place: _first_failure(seen, place) for place in self._failed.nonzero()[:, 0].tolist()}

    @torch.no_grad()
    def keep(self, places: Sequence[int]) -> None:
        """See `AgentStack`."""
        taken = torch.tensor(places, device=self.device)
        self.agents = [self.agents[place] for place in places]
        self._weights = self._weights[taken].requires_grad_(True)
        self._mean, self._square, self._failed = self._mean[taken], self._square[taken], self._failed[taken]
        self._rates, self._decay, self._clip = self._rates[taken], self._decay[taken], self._clip[taken]
        self._similarity = self._similarity[taken]
        self._centers = None if self._centers is None else self._centers[taken]
        self._fixed = {name: tensor[taken] for name, tensor in self._fixed.items()}
        self._places = torch.arange(len(places), device=self.device)
        if isinstance(self._draws, Streams):
            self._draws = Streams([self._draws.generators[place] for place in places])
        else:
            self._draws = Counted(self._draws.seeds[taken])

    @torch.no_grad()
    def scatter(self) -> None:
        """See `AgentStack`."""
        pieces = [
            tensor.split_with_sizes(self._sizes, dim=1)
            for tensor in (self._weights, self._mean, self._square)
        ]
        for place, agent in enumerate(self.agents):
            agent.step, named = self.step, dict(agent.modules().named_parameters())
            for (name, weight, shape), mean, square in zip(self._parts(pieces[0]), *pieces[1:], strict=True):
                parameter = named[name]
                parameter.copy_(weight[place].view(shape))
                if self.step:
                    agent.optimizer.state[parameter] = {
                        "step": torch.full((), float(self.step), dtype=torch.float32, device=self.device),
                        "exp_avg": mean[place].view(shape).clone(),
                        "exp_avg_sq": square[place].view(shape).clone(),
                    }

    def policy(self) -> StackedSequencePolicy:
        """See `AgentStack`."""
        return StackedSequencePolicy(self.predict, self.agents)

    def predict(self, inputs: Sequence[Tensor]) -> Tensor:
        """Actions or logits (R, B, A) after the last step of windows, without dropout.

        Args:
            inputs: returns-to-go (R, B, K), states (R, B, K, S), actions (R, B, K, A) or (R, B, K) and
                timesteps (R, B, K).
        """
        model = self._first.model

        def one(weights: Tensor, fixed: Named, place: Tensor, window: Sequence[Tensor]) -> Tensor:
            with drawing(self._draws, place), self.runtime.autocast():
                answer: Tensor = self._with(weights, fixed, lambda: model(*window, last_only=True)[:, 0])
            return answer.float()

        with evaluating(self._first.modules()):
            answers: Tensor = vmap(one)(self._weights, self._fixed, self._places, tuple(inputs))
        return answers

    def action_errors(self, batch: SequenceBatch) -> tuple[Tensor, Tensor | None]:
        """See `AgentStack`."""
        columns = {name: column for name, column in vars(batch).items() if name != "rows"}

        def one(weights: Tensor, fixed: Named, place: Tensor, own: Named) -> Any:
            with drawing(self._draws, place):
                return self._with(
                    weights, fixed, lambda: self._first.errors(SequenceBatch(**own, rows=place))
                )

        with evaluating(self._first.modules()):
            errors, squares = vmap(one)(self._weights, self._fixed, self._places, columns)
        return errors, squares if self._first.spec.num_actions is None else None

    def _vector(self, numbers: Sequence[float]) -> Tensor:
        """(R,) numbers beside the weights."""
        return torch.tensor(numbers, dtype=self._weights.dtype, device=self.device)

    def _columns(self, numbers: Sequence[Sequence[float]]) -> Tensor:
        """(R, P) numbers, given for each parameter of each run; (R, 1) where those of a run are equal."""
        if all(len(set(own)) == 1 for own in numbers):
            return self._vector([own[0] for own in numbers])[:, None]
        sizes = torch.tensor(self._sizes)
        rows = torch.tensor(numbers, dtype=self._weights.dtype).repeat_interleave(sizes, dim=1)
        return rows.to(self.device)


def stack_obstacle(agent: DecisionTransformer, first: DecisionTransformer) -> str | None:
    """See `Agent.stack_obstacle`."""
    shape, own = first.config.stack_shape, agent.config.stack_shape
    if shape is None or own is None or not isinstance(agent.model.backbone, GPT) or agent.spec.image_shape:
        return (
            f"{agent.config.arm_name} trains by itself only; a stack takes models of vectors around chibit's "
            "GPT that read no text"
        )
    if agent.config.dropout_draws == "stream" and agent.runtime.torch_device.type != "cpu":
        return "dropout_draws: got 'stream', which a stack has on a CPU only; use auto or counter"
    ours, theirs = (
        {
            **vars(config),
            "step": each.step,
            "runtime": each.runtime,
            "return_baseline": each.model.has_baseline,
            **_architecture_of(each),
            **_sizes_of(each),
        }
        for each, config in ((first, shape), (agent, own))
    )
    different = next((n for n in (*ours, *theirs) if ours.get(n) != theirs.get(n)), None)
    return different and (
        f"{different} is {theirs.get(different)}, in the first run of the stack {ours.get(different)}; runs "
        "of one stack may differ in seed, data, initializer, step sizes and weights of losses alone"
    )


def _generators(number: int) -> list[torch.Generator]:
    """So many, each of which draws other numbers."""
    seeds = torch.randint(2**31, (number,)).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _sizes_of(agent: DecisionTransformer) -> dict[str, Any]:
    """What must be equal of tensors, by their names."""
    named = {**_fixed(agent), **dict(agent.modules().named_parameters())}
    sizes: dict[str, Any] = {name: (tuple(t.shape), t.requires_grad) for name, t in named.items()}
    return sizes | {"centers": None if agent.centers is None else tuple(agent.centers.shape)}


def _architecture_of(agent: DecisionTransformer) -> dict[str, Any]:
    """What must be equal of backbones: tensors of equal sizes may have other heads or another activation."""
    backbone = agent.model.backbone
    if not isinstance(backbone, GPT):
        return {}
    return {**vars(backbone.config), "n_inner": backbone.config.inner_width}


def _fixed(agent: DecisionTransformer) -> Named:
    """Buffers, and parameters that are not trained."""
    parameters = {name: p for name, p in agent.modules().named_parameters() if not p.requires_grad}
    return parameters | dict(agent.modules().named_buffers())


def _rows(tensors: Sequence[Sequence[Tensor]]) -> Tensor:
    """(R, P) of R lists of tensors with P numbers."""
    return torch.stack([torch.cat([tensor.detach().flatten() for tensor in own]) for own in tensors])


def _moments(agents: Sequence[DecisionTransformer], parameters: Sequence[Sequence[Any]], key: str) -> Tensor:
    """(R, P) moments of the agents' optimizers; zeros where there are none yet."""
    states = [agent.optimizer.state for agent in agents]
    return _rows(
        [
            [state[p][key] if p in state else torch.zeros_like(p) for p in own]
            for state, own in zip(states, parameters, strict=True)
        ]
    )


def _by_parameter(agent: DecisionTransformer, parameters: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Step size and weight decay of each parameter."""
    found = {
        id(p): (group["base_lr"], group["weight_decay"])
        for group in agent.optimizer.param_groups
        for p in group["params"]
    }
    return [found[id(p)] for p in parameters]


def _first_failure(seen: Sequence[tuple[int, Tensor, Tensor, Tensor]], place: int) -> DivergenceError:
    """Why a run stands still: its first step that was not finite."""
    for step, rows, total, norm in seen:
        try:
            require_finite(step, rows[place], loss=total[place], gradient_norm=norm[place])
        except DivergenceError as error:
            return error
    raise AssertionError("a run stands still, and all its steps were finite")
