"""A trained policy, to deploy or to share: load it, reset it, act, and tell it what came of the action.

Dimensions: E episodes acted in at once · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chibit.agents.base import Agent
from chibit.core.config import to_json
from chibit.core.fields import refusal
from chibit.core.run_dir import is_run
from chibit.data.dataset import DatasetSpec
from chibit.models.hub import model_folder
from chibit.policy.card import PolicyScore, policy_scores
from chibit.policy.episodes import Episodes
from chibit.policy.export import export_policy
from chibit.policy.format import checked_target, load_agent, read_policy
from chibit.policy.run import load_run_agent
from chibit.policy.shapes import Shapes


class Policy(Episodes):
    """Acts in one environment or in several at once, with what an agent has learned.

    Call `reset`, then `act` and `observe` in turn. It is a policy as `chibit.evaluate` takes them.

    Attributes:
        spec: sizes, normalization, environment and score reference of the data it was trained on.
        scores: evaluations that came with it.
    """

    def __init__(
        self,
        agent: Agent,
        spec: DatasetSpec,
        *,
        target_return: float | None = None,
        scores: Sequence[PolicyScore] = (),
        greedy: bool = False,
    ) -> None:
        """Wrap an agent.

        Args:
            agent: acts with its current weights.
            spec: of the data it was trained on.
            target_return: raw return to ask for; None is the data's first default where the method takes one.
            scores: evaluations to keep with it.
            greedy: take the likeliest action where the method would draw one; its evaluations draw.

        Raises:
            InputError: for a target return that is not finite, or given to a method that takes none.
        """
        self.agent, self.spec, self.scores = agent, spec, tuple(scores)
        target = checked_target(agent, spec, target_return)
        agent.acting_modules().eval()
        acting = agent.policy(None if target is None else [target])
        super().__init__(acting, Shapes.of(to_json(spec)), target, greedy=greedy)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        target_return: float | None = None,
        device: str = "cpu",
        greedy: bool = False,
    ) -> Policy:
        """Load a policy.

        Args:
            source: a folder that `save_pretrained` or `chibit export` wrote, a run's (its last checkpoint
                acts), or an id on the Hub.
            target_return: raw return to ask for in place of the saved one, or of the run's first.
            device: "cpu", "cuda", "cuda:N" or "auto".
            greedy: take the likeliest action where the method would draw one.

        Raises:
            InputError: if there is no such policy, or its method or configuration is unknown.
            DamagedFileError: if its files are damaged or do not fit together.
            ResourceError: if the Hub cannot be reached.
        """
        if not isinstance(source, str | Path):
            raise refusal("source", source, "a folder, or an id on the Hub")
        folder = model_folder(str(source), flag="the folder that chibit export wrote")
        if is_run(folder):
            run = load_run_agent(folder, device=device)
            wanted = run.target_return if target_return is None else target_return
            scores = policy_scores(run.evaluations, run.spec)
            return cls(run.agent, run.spec, target_return=wanted, scores=scores, greedy=greedy)
        saved = read_policy(folder)
        agent = load_agent(saved, folder, device)
        wanted = saved.target_return if target_return is None else target_return
        return cls(agent, saved.spec, target_return=wanted, scores=saved.scores, greedy=greedy)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the policy into a folder, beside what is there; raises as `export_policy`."""
        return export_policy(
            self.agent, self.spec, folder, target_return=self.target_return, scores=self.scores
        )


__all__ = ["Policy", "PolicyScore", "export_policy"]
