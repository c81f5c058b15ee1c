"""``chibit pretrain``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from chibit.commands.parsing import parse, take_option
from chibit.commands.train import Destination, with_destination
from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.core.fields import BASIC, Group
from chibit.core.files import nearest
from chibit.core.terminal import make_console

_TEXT = (
    "Train a language model on text or on a synthetic corpus.\n\n"
    "Example: chibit pretrain --corpus markov --num-steps 1000 --precision bf16"
)


@dataclass(frozen=True, kw_only=True)
class Choice(Checked):
    """What other defaults follow from; it is read before them."""

    size: Annotated[str, BASIC, Group("model")] = "chibit"
    """Backbone; chibit, 3M, 18M or 84M, as in Table 9."""


def arguments_class() -> Any:
    """The arguments of ``chibit pretrain``."""
    from chibit.training.pretrain.config import PretrainConfig

    return with_destination(PretrainConfig, _TEXT, Choice)


def pretrain(argv: Sequence[str], prog: str) -> None:
    """``chibit pretrain``."""
    from chibit.training.pretrain.config import SIZES, PretrainConfig, pretrain_path
    from chibit.training.pretrain.loop import pretrain as pretrain_model

    size = take_option(list(argv), "--size")
    if size is not None and size not in SIZES:
        raise InputError(f"--size: unknown {size!r}{nearest(size, SIZES)}; known: {', '.join(SIZES)}")
    kind = arguments_class()
    defaults = PretrainConfig() if size is None else PretrainConfig(gpt=SIZES[size])
    destination = Destination(study="pretrain")
    arguments = parse(kind, argv, prog, kind(run=defaults, destination=destination))
    config, destination = arguments.run, arguments.destination
    path = destination.out or pretrain_path(config, Path("runs"), destination.study)
    result = destination.run(pretrain_model, config, path)
    console = make_console()
    console.print(
        f"held-out perplexity {result['held_out_perplexity']:.2f} on {result['held_out_name']} after "
        f"{result['tokens_seen']:,} tokens (untrained {result['untrained_perplexity']:,.0f}, "
        f"word frequencies {result['unigram_perplexity']:,.1f})",
    )
    console.print(f"language model: {path / 'language_model'}", soft_wrap=True)
    console.print(f"fine-tune it: chibit train --data hopper-medium --initializer {path}", soft_wrap=True)
