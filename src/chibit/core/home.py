"""The folder of what is made or fetched once and kept: stores, downloads, corpora, language models."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from chibit.core.files import user_path


def home_folder(cache: str | Path | None = None) -> Path:
    """Give the folder: `cache`, else $CHIBIT_HOME, else ~/.cache/chibit; raises as `user_path`."""
    configured = os.environ.get("CHIBIT_HOME")
    return user_path(cache or configured or "~/.cache/chibit")


def language_model_folder(name: str, steps: int, text: str = "") -> Path:
    """Where a language model is kept that was pre-trained on first use.

    Args:
        name: what it is trained on or how large it is; letters, digits and _.
        steps: gradient steps.
        text: the text, if another than its own.
    """
    suffix = f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if text else ""
    return home_folder() / "language_models" / f"{name}-{steps}{suffix}"
