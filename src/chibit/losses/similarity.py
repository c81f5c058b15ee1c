"""Drawing trajectory tokens toward word embeddings: Eq. 7 and 8 of Reid et al. (2022).

The vocabulary is replaced by the centers of a spherical K-means over its embeddings (section 3.2). The
released code computes another function than Eq. 8; both are here, see docs/deviations.md.

Dimensions: B batch · T tokens of a window · D width · C centers · N rows to cluster.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Literal, get_args

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from chibit.core.errors import InputError, UserError
from chibit.core.files import make_folder, write_atomic
from chibit.core.tensors import read_safetensors

log = logging.getLogger(__name__)

SimilarityForm = Literal["mean_max_cosine", "paper_sum", "mean_pool", "released", "released_raw"]

_SEED_SAMPLE = 10
_SEED_CANDIDATES = 8
_CHUNK = 4096


def similarity_loss(
    tokens: Tensor, centers: Tensor, attention_mask: Tensor, form: SimilarityForm = "mean_max_cosine"
) -> Tensor:
    """Negative similarity of input representations to word embeddings, L_cos of Eq. 8.

    Args:
        tokens: (B, T, D) input representations I.
        centers: (C, D) centers E of the word embeddings; no gradient flows into them.
        attention_mask: (B, T) bool, True for real tokens.
        form: one of
            `mean_max_cosine`: the largest cosine over centers, averaged over real tokens;
            `paper_sum`: as printed, summed over a window's real tokens and averaged over windows;
            `mean_pool`: the mean cosine over centers in place of the largest (footnote 2);
            `released`: as in the released code, the largest product over centers for each coordinate by
            itself, averaged over coordinates and all tokens, padding included;
            `released_raw`: the same with neither side normalized, as in its co-training trainer.

    Returns:
        Scalar. In [-1, 1] for `mean_max_cosine` and `mean_pool`, in [-T, T] for `paper_sum`.

    Raises:
        InputError: if tokens and centers differ in width, or the form is unknown.
    """
    if tokens.shape[-1] != centers.shape[-1]:
        raise InputError(f"centers have width {centers.shape[-1]}, expected the tokens' {tokens.shape[-1]}")
    if form not in get_args(SimilarityForm):
        raise InputError(
            f"similarity_form is {form!r}, expected one of {', '.join(get_args(SimilarityForm))}"
        )
    centers = centers.detach()
    if form == "released_raw":
        return _per_coordinate_maximum(tokens, centers)
    directions, words = F.normalize(tokens, dim=-1), F.normalize(centers, dim=-1)
    if form == "released":
        return _per_coordinate_maximum(directions, words)
    pooled = form == "mean_pool"
    cosines = directions @ words.mean(dim=0) if pooled else _largest_cosine(directions, words)  # (B, T)
    total = -(cosines * attention_mask).sum()
    return total / (len(tokens) if form == "paper_sum" else attention_mask.sum())


def _largest_cosine(directions: Tensor, words: Tensor) -> Tensor:
    """(B, T) largest of (B, T, D) @ (D, C); through the winner alone, value and gradient are the same."""
    with torch.no_grad():
        nearest = (directions @ words.T).argmax(dim=-1)
    return (directions * words[nearest]).sum(dim=-1)


def _per_coordinate_maximum(tokens: Tensor, words: Tensor) -> Tensor:
    """Closed form of -mean_j max_c t_j w_cj: by the sign of t_j, the largest or smallest w_j wins."""
    winners = torch.where(tokens > 0, words.amax(dim=0), words.amin(dim=0))
    return -(tokens * winners).mean()


def spherical_kmeans(
    embeddings: Tensor, num_clusters: int, *, seed: int = 0, max_iterations: int = 16, tolerance: float = 2e-4
) -> Tensor:
    """Cluster rows by direction: Lloyd's iterations on cosines.

    They start from a greedy K-means++ on a sample of rows. A cluster that loses its last row restarts at
    the row that is farthest from its center.

    Args:
        embeddings: (N, D); rows of zeros belong to no cluster.
        num_clusters: C, at most N.
        seed: of the start.
        max_iterations: Lloyd iterations at most.
        tolerance: stop when an iteration lowers the inertia, the sum over rows of one minus the cosine to
            the nearest center, by less than this fraction.

    Returns:
        (C, D) float32 centers: the mean direction of a cluster, with the mean norm of its rows.

    Raises:
        InputError: if there are fewer rows than clusters, or a value is not finite.
    """
    rows = embeddings.detach().float()
    if not torch.isfinite(rows).all():
        raise InputError("embeddings to cluster hold a value that is not finite")
    norms = rows.norm(dim=-1)
    rows, norms = rows[norms > 0], norms[norms > 0]
    if not 1 <= num_clusters <= len(rows):
        raise InputError(
            f"num_clusters is {num_clusters}, expected 1 to {len(rows)}, the number of embeddings"
        )
    rows = rows / norms[:, None]
    centers = _greedy_start(rows, num_clusters, torch.Generator(rows.device).manual_seed(seed))
    previous = float("inf")
    for _ in range(max_iterations):
        cosines, clusters = _assign(rows, centers)
        centers = _mean_directions(rows, cosines, clusters, num_clusters)
        inertia = (1.0 - cosines).sum().item()
        if previous - inertia <= tolerance * inertia:
            break
        previous = inertia
    _, clusters = _assign(rows, centers)
    counts = torch.bincount(clusters, minlength=num_clusters).clamp(min=1)
    mean_norms = torch.zeros(num_clusters, device=rows.device).index_add_(0, clusters, norms) / counts
    # A center that no row is nearest to keeps the mean norm of all rows.
    return centers * torch.where(mean_norms > 0, mean_norms, norms.mean())[:, None]


def _greedy_start(rows: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """K-means++ (Arthur and Vassilvitskii, 2007), each time taking the best of a few candidates."""
    order = torch.randperm(len(rows), generator=generator, device=rows.device)
    sample = rows[order[: _SEED_SAMPLE * num_clusters]]
    distances = 1.0 - sample @ sample[0]  # half the squared distance between unit vectors
    chosen = [sample[0]]
    for _ in range(num_clusters - 1):
        # The small term keeps a draw possible where all rows coincide with a center.
        candidates = torch.multinomial(
            distances.clamp(min=0) + 1e-12, _SEED_CANDIDATES, replacement=True, generator=generator
        )
        reduced = torch.minimum(1.0 - sample @ sample[candidates].T, distances[:, None])
        best = reduced.sum(dim=0).argmin()
        distances = reduced[:, best]
        chosen.append(sample[candidates[best]])
    return torch.stack(chosen)


def _assign(rows: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Largest cosine (N,) and its center (N,) for each row, in chunks that fit a cache."""
    found = [(chunk @ centers.T).max(dim=-1) for chunk in torch.split(rows, _CHUNK)]
    return torch.cat([x.values for x in found]), torch.cat([x.indices for x in found])


def _mean_directions(rows: Tensor, cosines: Tensor, clusters: Tensor, num_clusters: int) -> Tensor:
    sums = torch.zeros(num_clusters, rows.shape[1], device=rows.device).index_add_(0, clusters, rows)
    empty = torch.bincount(clusters, minlength=num_clusters) == 0
    sums[empty] = rows[cosines.argsort()[: int(empty.sum())]]
    return F.normalize(sums, dim=-1)


def load_centers(embeddings: Tensor, num_clusters: int, *, seed: int = 0, folder: Path) -> Tensor:
    """Give the centers of an embedding table, from a folder where they are kept once computed.

    The file's name is a hash of the table, the number of clusters and the seed; its content is checked
    against a hash, and is computed anew where that fails.

    Args:
        embeddings: (N, D).
        num_clusters: C.
        seed: of `spherical_kmeans`.
        folder: of the files; made if it is missing.

    Returns:
        (C, D) float32 on the CPU.

    Raises:
        InputError: as `spherical_kmeans`.
        ResourceError: if the folder cannot be written.
    """
    table = embeddings.detach().cpu().float().contiguous()
    key = hashlib.sha256(f"spherical {num_clusters} {seed} {tuple(table.shape)} ".encode())
    key.update(table.numpy().data)
    path = folder / f"{key.hexdigest()[:32]}.safetensors"
    if path.exists():
        centers = read_centers(path)
        if centers is not None:
            return centers
        log.warning("%s: damaged, computing the centers anew", path)
    centers = spherical_kmeans(table, num_clusters, seed=seed)
    make_folder(folder)
    metadata = {"sha256": _digest(centers)}
    write_atomic(path, safetensors.torch.save({"centers": centers}, metadata))
    return centers


def read_centers(path: Path) -> Tensor | None:
    """Read a file of centers.

    Returns:
        (C, D) float32; None where the file is missing or does not hold what was written.
    """
    try:
        tensors, metadata = read_safetensors(path)
    except UserError:
        return None
    centers = tensors.get("centers")
    if centers is None or centers.dtype != torch.float32 or _digest(centers) != metadata.get("sha256"):
        return None
    return centers


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().data).hexdigest()
