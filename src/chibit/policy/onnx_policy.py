"""A policy from `policy.onnx` that keeps its own history: needs numpy and onnxruntime, and no torch.

Dimensions: E episodes acted in at once · L of them that still run · S state_dim · A act_dim · N num_actions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from chibit.core.acting import EpisodePolicy, TrajectoryPolicy, Window
from chibit.core.errors import DamagedFileError, InputError, first_line, needing
from chibit.core.files import check_regular, user_path
from chibit.core.state_policies import MemorylessPolicy, RecentPolicy
from chibit.policy.episodes import Episodes
from chibit.policy.shapes import Shapes, read_target

GRAPH = "policy.onnx"
_REMEDY = "write it again with chibit export --onnx"


class OnnxPolicy(Episodes):
    """Acts as `chibit.Policy` does, by the graph that `chibit export --onnx` wrote.

    Attributes:
        facts: what the graph says of itself: data, environment, agent, context, target returns.
    """

    def __init__(
        self,
        session: Any,
        facts: dict[str, Any],
        *,
        target_return: float | None = None,
        greedy: bool = False,
    ) -> None:
        """Wrap a graph.

        Args:
            session: of onnxruntime.
            facts: its metadata.
            target_return: raw return to ask for in place of the saved one.
            greedy: take the likeliest action where the method would draw one.
        """
        self.facts = facts
        shapes, saved = Shapes.of(facts["spec"]), facts["target_return"]
        if saved is None and target_return is not None:
            raise InputError(f"target_return is {target_return}, but this method takes none")
        asked = saved if target_return is None else target_return
        target = None if asked is None else read_target(asked)
        acting: EpisodePolicy
        if "context_length" in facts:
            acting = _Trajectories(session, facts, shapes, 0.0 if target is None else target)
        elif "observations_length" in facts:
            acting = _LastStates(session, facts["observations_length"], shapes)
        else:
            acting = _SingleStates(session, facts["epsilon"], shapes)
        super().__init__(acting, shapes, target, greedy=greedy)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        target_return: float | None = None,
        greedy: bool = False,
        num_threads: int = 1,
    ) -> OnnxPolicy:
        """Load a policy.

        Args:
            source: a folder that `chibit export --onnx` wrote, or the `policy.onnx` in it.
            target_return: raw return to ask for in place of the saved one.
            greedy: take the likeliest action where the method would draw one.
            num_threads: of one action.

        Raises:
            InputError: if there is no such file, or one of another origin.
            DamagedFileError: if it is no whole graph.
        """
        path = user_path(source)
        path = path if path.suffix == ".onnx" else path / GRAPH
        check_regular(path, remedy=_REMEDY)
        with needing("onnx", "onnx:", "or onnxruntime alone"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = num_threads, 3
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own, which have no common base
            raise DamagedFileError(f"{path}: is no whole graph ({first_line(error)}); {_REMEDY}") from error
        metadata = session.get_modelmeta().custom_metadata_map
        if "spec" not in metadata:
            raise InputError(f"{path}: says nothing of its data; {_REMEDY}")
        try:
            facts = {key: json.loads(value) for key, value in metadata.items()}
            policy = cls(session, facts, greedy=greedy)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"{path}: its metadata are damaged ({error!r}); {_REMEDY}") from error
        if target_return is not None:
            policy.target_return = target_return
        return policy


class _Trajectories(TrajectoryPolicy):
    """The graph of a sequence model."""

    def __init__(self, session: Any, facts: dict[str, Any], shapes: Shapes, target_return: float) -> None:
        (width,) = shapes.observation_shape
        super().__init__(
            [target_return],
            context_length=facts["context_length"],
            width=width,
            act_dim=None if shapes.num_actions is not None else shapes.action_shape[0],
            reward_mode=facts["reward_mode"],
            dtype=shapes.dtype,
        )
        self._session = session
        self._inputs = {given.name for given in session.get_inputs()}
        self._output = "action" if shapes.num_actions is None else "logits"

    def _encode(self, observations: np.ndarray) -> np.ndarray:
        return observations

    def _ask(self, window: Window) -> np.ndarray:
        given = {
            "returns_to_go": window.returns_to_go,
            "observations": window.states,
            "actions": window.actions,
            "timesteps": window.timesteps,
        }
        # A graph lacks inputs that its model does not look at.
        feed = {name: value for name, value in given.items() if name in self._inputs}
        (answer,) = self._session.run([self._output], feed)
        return np.asarray(answer)


class _SingleStates(MemorylessPolicy):
    """The graph of a baseline."""

    def __init__(self, session: Any, epsilon: float, shapes: Shapes) -> None:
        super().__init__(shapes.num_actions, epsilon)
        self._session, self._shapes = session, shapes

    def _choose(self, observations: np.ndarray) -> np.ndarray:
        return _ask(self._session, observations, self._shapes)


class _LastStates(RecentPolicy):
    """The graph of a baseline that sees several observations at once."""

    def __init__(self, session: Any, length: int, shapes: Shapes) -> None:
        super().__init__(length, shapes.mean.astype(shapes.dtype))
        self._session, self._shapes = session, shapes

    def _choose(self, observations: np.ndarray) -> np.ndarray:
        return _ask(self._session, observations, self._shapes)


def _ask(session: Any, observations: np.ndarray, shapes: Shapes) -> np.ndarray:
    (answer,) = session.run(["action"], {"observations": observations.astype(shapes.dtype)})
    return np.asarray(answer)
