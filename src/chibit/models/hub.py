"""Files of a foreign model: found in a folder or on the Hugging Face Hub, and read without running them.

Weights are read from safetensors only. A pickle (`pytorch_model.bin`, `*.pt`) can run code when it is opened
and is refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from chibit.core.config import read_json
from chibit.core.errors import DamagedFileError, InputError, ResourceError, needing
from chibit.core.files import check_name, open_regular, user_path
from chibit.core.network import unreachable
from chibit.core.tensors import read_safetensors

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MODEL_FILES = ["*.json", "model*.safetensors", "*.gguf", "tokenizer.model", "merges.txt", "vocab.txt"]
_LARGEST_JSON = 256 << 20
_CONVERSION_TITLE = "Adding `safetensors` variant of this model"
_CONVERSION_AUTHOR = "SFconvertbot"


def model_folder(source: str, *, flag: str) -> Path:
    """Find a model's files.

    Args:
        source: a folder, or an id on the Hub ("gpt2", "organization/model").
        flag: what a user would write to give a folder, for messages, for example "gpt2:FOLDER".

    Returns:
        The folder itself, or the Hub's snapshot in its local cache. With HF_HUB_OFFLINE=1 only the cache is
        looked at.

    Raises:
        InputError: if a path does not exist, or the Hub knows no such model.
        ResourceError: if the Hub does not answer and its cache has no copy; this takes seconds.
    """
    folder = user_path(source)
    if source and folder.is_dir():
        _check_files(folder)
        return folder
    if folder.exists() or folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise InputError(
            f"{source}: no such folder; give a folder with config.json and model.safetensors, or a Hub id"
        )
    return _download(check_name(source, "Hub model"), flag)


def _check_files(folder: Path) -> None:
    """Refuse what libraries would wait for or read without end: they open files of these names unseen."""
    for pattern in _MODEL_FILES:
        for file in sorted(folder.glob(pattern)):
            if file.name.endswith("config.json"):
                read_json(file)
                continue
            with open_regular(file, most=_LARGEST_JSON if file.suffix == ".json" else None):
                pass


def _download(repo_id: str, flag: str) -> Path:
    """Snapshot of a model repository in the Hub's local cache."""
    with needing("hf", f"{repo_id}: downloading", f"or give a folder: {flag}"):
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    failure = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreachable(constants.ENDPOINT)
    try:
        if failure is not None:
            return Path(snapshot_download(repo_id, allow_patterns=_MODEL_FILES, local_files_only=True))
        folder = Path(snapshot_download(repo_id, allow_patterns=_MODEL_FILES))
        return folder if _has_safe_weights(folder) else _converted(repo_id)
    except HFValidationError as error:
        raise InputError(
            f"{repo_id}: no folder here, and no name that a model of the Hub can have; check it, or give a "
            f"folder: {flag}"
        ) from error
    except GatedRepoError as error:
        raise InputError(
            f"{repo_id}: the Hub wants you to accept this model's terms first; or give a folder: {flag}"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{repo_id}: the Hub has no such model, or it is private; check the name or give a folder: {flag}"
        ) from error
    except OSError as error:
        cause = failure or str(error).partition("\n")[0]
        raise ResourceError(
            f"{repo_id}: not in the local cache, and the Hub cannot be reached ({cause}); "
            f"give a folder: {flag}"
        ) from error


def _converted(repo_id: str) -> Path:
    """The safetensors copy that the Hub's conversion bot has proposed for a repository of pickles."""
    from huggingface_hub import get_repo_discussions, snapshot_download

    for proposal in get_repo_discussions(repo_id, discussion_type="pull_request", discussion_status="open"):
        if proposal.title == _CONVERSION_TITLE and proposal.author == _CONVERSION_AUTHOR:
            return Path(
                snapshot_download(repo_id, revision=proposal.git_reference, allow_patterns=_MODEL_FILES)
            )
    raise DamagedFileError(
        f"{repo_id}: the Hub has its weights as a pickle only, which can run code and is not opened; "
        "convert it to safetensors and give the folder"
    )


def _has_safe_weights(folder: Path) -> bool:
    return any(folder.glob("model*.safetensors")) or any(folder.glob("*.gguf"))


def require_safe_weights(folder: Path) -> None:
    """Refuse a folder whose weights are a pickle, or that has none.

    Raises:
        DamagedFileError: if there is a pickle and no safetensors or GGUF file.
        InputError: if there is none of them.
    """
    if _has_safe_weights(folder):
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise DamagedFileError(
            f"{folder / pickles[0]}: a pickle can run code and is not opened; "
            "convert it to model.safetensors (save_pretrained writes that)"
        )
    raise InputError(f"{folder}: no model.safetensors in it; give the folder that save_pretrained wrote")


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json`."""
    path = folder / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise DamagedFileError(
            f"{path}: holds a {type(config).__name__}, expected a JSON object; fetch it again"
        )
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read every tensor of `model.safetensors`, or of the shards that its index names, as float32.

    Raises:
        DamagedFileError: for a pickle, a damaged file, a shard outside the folder, or what is not finite.
        InputError: if there are no weights, or a shard is missing.
    """
    require_safe_weights(folder)
    index = folder / "model.safetensors.index.json"
    tensors: dict[str, Tensor] = {}
    for name in _shard_names(index) if index.exists() else ["model.safetensors"]:
        tensors.update(_read_shard(folder / name))
    return tensors


def _shard_names(index: Path) -> list[str]:
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"{index}: not an index of shards ({error}); fetch it again") from error
    for name in names:
        if not isinstance(name, str) or os.path.basename(name) != name or not name.endswith(".safetensors"):
            raise DamagedFileError(
                f"{index}: names the shard {name!r}, expected a safetensors file beside it"
            )
    return names


def _read_shard(path: Path) -> dict[str, Tensor]:
    tensors, _ = read_safetensors(path, remedy="fetch the model again")
    single = {name: tensor.float() for name, tensor in tensors.items()}
    for name, tensor in single.items():
        if not bool(tensor.isfinite().all()):
            raise DamagedFileError(f"{path}: {name} holds what is not a finite number; fetch the model again")
    return single
