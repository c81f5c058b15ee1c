"""Eq. 7-8 in all its forms against loops, spherical K-means, and the file that keeps its centers."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chibit.core.errors import InputError
from chibit.losses.similarity import (
    load_centers,
    similarity_loss,
    spherical_kmeans,
)

SHARED = Path(os.environ.get("CHIBIT_SHARED", "../shared")) / "data" / "embedding_centers"
FORMS = ("mean_max_cosine", "paper_sum", "mean_pool", "released", "released_raw")


def spherical_inertia(embeddings, centers):
    """Sum over the rows (N, D) of one minus the largest cosine to a center (C, D)."""
    cosines = F.cosine_similarity(embeddings[:, None], centers[None], dim=-1)
    return (1.0 - cosines.max(dim=1).values).sum().item()


def by_loops(tokens: Tensor, centers: Tensor, mask: Tensor, form: str) -> Tensor:
    """The definitions, one scalar at a time."""
    batch, length, width = tokens.shape
    total = torch.zeros((), dtype=tokens.dtype)
    for b in range(batch):
        for t in range(length):
            token = tokens[b, t] if form == "released_raw" else tokens[b, t] / tokens[b, t].norm()
            words = [c if form == "released_raw" else c / c.norm() for c in centers]
            if form.startswith("released"):
                for j in range(width):
                    total = total + torch.stack([token[j] * word[j] for word in words]).max() / width
            elif mask[b, t]:
                cosines = torch.stack([sum(token[j] * word[j] for j in range(width)) for word in words])
                total = total + (cosines.mean() if form == "mean_pool" else cosines.max())
    if form == "paper_sum":
        return -total / batch
    return -total / (batch * length if form.startswith("released") else mask.sum())


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_every_form_equals_its_definition_in_value_and_gradient(form: str, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    centers = torch.randn(5, 4, generator=draw, dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    loss, expected = similarity_loss(tokens, centers, mask, form), by_loops(tokens, centers, mask, form)
    torch.testing.assert_close(loss, expected)
    (gradient,), (right,) = torch.autograd.grad(loss, tokens), torch.autograd.grad(expected, tokens)
    torch.testing.assert_close(gradient, right)
    assert (gradient[1, 1:] == 0).all() != form.startswith("released")


def test_by_hand() -> None:
    tokens = torch.tensor([[[3.0, 4.0], [0.0, -2.0], [7.0, 7.0]]])
    centers = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    mask = torch.tensor([[True, True, False]])
    values = {form: similarity_loss(tokens, centers, mask, form).item() for form in FORMS}
    # Cosines: (0.6, 0.8), (0, -1).
    assert values["mean_max_cosine"] == pytest.approx(-(0.8 + 0.0) / 2)
    assert values["paper_sum"] == pytest.approx(-(0.8 + 0.0))
    assert values["mean_pool"] == pytest.approx(-(0.7 - 0.5) / 2)
    # Per coordinate, of six: 0.6 and 0.8; 0 and 0; twice sqrt(1/2) of the padding.
    assert values["released"] == pytest.approx(-(0.6 + 0.8 + 2 * math.sqrt(0.5)) / 6)
    assert values["released_raw"] == pytest.approx(-(3 * 2 + 4 * 5 + 7 * 2 + 7 * 5) / 6)


@pytest.mark.parametrize("form", ["mean_max_cosine", "mean_pool"])
def test_range_and_indifference_to_norms(form: str) -> None:
    centers = torch.randn(6, 8)
    mask = torch.ones(2, 3, dtype=torch.bool)
    parallel = (10 * centers).reshape(2, 3, 8)
    loss = similarity_loss(parallel, centers, mask, form)
    assert loss.item() == pytest.approx(-1.0) if form == "mean_max_cosine" else -1.0 <= loss.item() <= 1.0
    torch.testing.assert_close(similarity_loss(0.1 * parallel, 7 * centers, mask, form), loss)


def test_no_gradient_flows_into_the_centers() -> None:
    centers = torch.randn(3, 4, requires_grad=True)
    tokens = torch.randn(1, 2, 4, requires_grad=True)
    similarity_loss(tokens, centers, torch.ones(1, 2, dtype=torch.bool)).backward()
    assert centers.grad is None
    assert tokens.grad is not None


def test_misfits_are_refused() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(InputError, match="width 5, expected the tokens' 4"):
        similarity_loss(torch.ones(1, 2, 4), torch.ones(3, 5), mask)
    with pytest.raises(InputError, match="similarity_form is 'cosine', expected one of mean_max_cosine, "):
        similarity_loss(torch.ones(1, 2, 4), torch.ones(3, 4), mask, "cosine")


@pytest.mark.skipif(not SHARED.exists(), reason=f"no published centers under {SHARED}")
@pytest.mark.parametrize(
    ("name", "max_cosine", "released", "optimum"),
    [("chibiv2_lm_1000", 0.234, -0.0160, -0.0244), ("gpt2_1000", 0.080, -0.0023, -0.0037)],
)
def test_magnitudes_with_the_published_centers(
    name: str, max_cosine: float, released: float, optimum: float
) -> None:
    """Of random directions, where the cosine form is tens of times the released one."""
    centers = torch.load(SHARED / f"{name}.pt", map_location="cpu", weights_only=True).float()
    tokens = torch.randn(8, 60, centers.shape[1], generator=torch.Generator().manual_seed(0))
    mask = torch.ones(8, 60, dtype=torch.bool)
    assert similarity_loss(tokens, centers, mask).item() == pytest.approx(-max_cosine, abs=0.003)
    assert similarity_loss(tokens, centers, mask, "released").item() == pytest.approx(released, abs=2e-4)
    # The largest that the released form can reach over directions: along the coordinates' extremes.
    words = F.normalize(centers, dim=-1)
    lowest, highest = words.amin(dim=0), words.amax(dim=0)
    best = torch.where(highest > -lowest, highest, lowest)
    loss = similarity_loss(best[None, None], centers, mask[:1, :1], "released")
    assert loss.item() == pytest.approx(optimum, abs=1e-4)


def clustered_rows(seed: int, num_rows: int = 3000, width: int = 24, groups: int = 60) -> Tensor:
    """Groups of unequal size around a common direction, with unequal norms, as word embeddings are."""
    draw = torch.Generator().manual_seed(seed)
    group_centers = torch.randn(groups, width, generator=draw) + 0.5
    sizes = 1.0 / torch.arange(1, groups + 1)
    group = torch.multinomial(sizes, num_rows, replacement=True, generator=draw)
    rows = group_centers[group] + 0.6 * torch.randn(num_rows, width, generator=draw)
    return rows * (0.5 + torch.rand(num_rows, 1, generator=draw))


@pytest.mark.parametrize("seed", [0, 1])
def test_kmeans_is_within_one_percent_of_scikit_learn(seed: int) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    rows = clustered_rows(seed)
    units = F.normalize(rows, dim=-1)
    theirs = cluster.KMeans(100, n_init=1, random_state=seed).fit(units.numpy())
    ours = spherical_kmeans(rows, 100, seed=seed)
    assert spherical_inertia(rows, ours) <= 1.01 * spherical_inertia(
        rows, torch.from_numpy(theirs.cluster_centers_).float()
    )


def test_kmeans_finds_separate_groups_and_their_mean_norms() -> None:
    directions = torch.eye(3).repeat_interleave(4, dim=0)
    rows = directions * torch.tensor([1.0, 2.0, 3.0, 2.0]).repeat(3)[:, None]
    centers = spherical_kmeans(rows, 3)
    torch.testing.assert_close(centers[centers.argmax(dim=0)], 2.0 * torch.eye(3))


def test_kmeans_depends_on_its_seed_alone() -> None:
    rows = clustered_rows(0, num_rows=500)
    torch.manual_seed(1)
    first = spherical_kmeans(rows, 20, seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(spherical_kmeans(rows, 20, seed=3), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(spherical_kmeans(rows, 20, seed=4), first)


def test_every_iteration_lowers_the_inertia() -> None:
    rows = clustered_rows(0, num_rows=800)
    inertias = [
        spherical_inertia(rows, spherical_kmeans(rows, 40, max_iterations=n, tolerance=0.0))
        for n in range(1, 8)
    ]
    assert all(later <= earlier + 1e-3 for earlier, later in zip(inertias, inertias[1:], strict=False))
    assert inertias[-1] < inertias[0]


def test_equal_rows_and_zero_rows_leave_finite_centers() -> None:
    rows = torch.cat((torch.ones(30, 4), torch.zeros(5, 4), torch.tensor([[1.0, 0, 0, 0]])))
    centers = spherical_kmeans(rows, 4)
    assert torch.isfinite(centers).all()
    assert (centers.norm(dim=-1) > 0).all()
    assert spherical_inertia(rows[[0, -1]], centers) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("clusters", [0, 4])
def test_impossible_numbers_of_clusters_are_refused(clusters: int) -> None:
    with pytest.raises(InputError, match="expected 1 to 3"):
        spherical_kmeans(torch.cat((torch.eye(3), torch.zeros(2, 3))), clusters)


@pytest.mark.parametrize("clusters", [1, 4])
def test_a_cluster_of_one_row_is_that_row_and_one_of_all_is_their_direction(clusters: int) -> None:
    rows = torch.eye(4) * torch.tensor([0.25, 1.0, 2.0, 3.0])[:, None]
    centers = spherical_kmeans(rows, clusters)
    if clusters == 4:
        assert sorted(centers.norm(dim=-1).tolist()) == pytest.approx([0.25, 1.0, 2.0, 3.0])
    else:
        assert centers[0].tolist() == pytest.approx([6.25 / 4 / 2] * 4)


def test_the_start_is_that_of_earlier_versions() -> None:
    """Files of centers are kept by the seed."""
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    start = spherical_kmeans(rows, 4, seed=3, max_iterations=0)
    cosines = F.normalize(start, dim=-1) @ F.normalize(rows, dim=-1).T
    assert cosines.argmax(dim=-1).tolist() == [26, 38, 7, 12]
    assert cosines.amax(dim=-1).tolist() == pytest.approx([1.0] * 4)


def test_iterations_end_where_the_next_lowers_the_inertia_by_too_small_a_share() -> None:
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    after = [spherical_kmeans(rows, 4, seed=3, max_iterations=n, tolerance=0.0) for n in range(4)]
    first, second = (spherical_inertia(rows, centers) for centers in after[:2])
    for factor, num_iterations in ((1.01, 2), (0.99, 3)):
        tolerance = factor * (first - second) / second
        centers = spherical_kmeans(rows, 4, seed=3, max_iterations=3, tolerance=tolerance)
        assert torch.equal(centers, after[num_iterations])


def test_embeddings_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="^embeddings to cluster hold a value that is not finite$"):
        spherical_kmeans(torch.tensor([[1.0, float("nan")]]), 1)


class TestCentersOnDisk:
    def test_are_computed_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = clustered_rows(0, num_rows=200)
        first = load_centers(rows, 5, folder=tmp_path / "centers")
        assert torch.equal(first, spherical_kmeans(rows, 5))
        monkeypatch.setattr("chibit.losses.similarity.spherical_kmeans", None)
        assert torch.equal(load_centers(rows, 5, folder=tmp_path / "centers"), first)

    def test_belong_to_one_table_number_and_seed(self, tmp_path: Path) -> None:
        rows = clustered_rows(0, num_rows=200)
        load_centers(rows, 5, folder=tmp_path)
        changed = rows.clone()
        changed[17, 3] += 1e-3
        for table, clusters, seed in ((changed, 5, 0), (rows, 6, 0), (rows, 5, 1)):
            centers = load_centers(table, clusters, seed=seed, folder=tmp_path)
            assert torch.equal(centers, spherical_kmeans(table, clusters, seed=seed))
        assert len(list(tmp_path.iterdir())) == 4

    @pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "half"])
    def test_are_computed_anew_where_the_file_is_damaged(
        self, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = clustered_rows(0, num_rows=200)
        expected = load_centers(rows, 5, folder=tmp_path)
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        half = safetensors.torch.save({"centers": expected.bfloat16()}, {"sha256": "?"})
        path.write_bytes({"flip": flipped, "truncate": whole[:-40], "empty": b"", "half": half}[damage])
        assert torch.equal(load_centers(rows, 5, folder=tmp_path), expected)
        assert f"{path}: damaged" in caplog.text
        assert path.read_bytes() == whole


@pytest.mark.slow
def test_a_vocabulary_of_gpt2s_size_is_clustered_in_time() -> None:
    import time

    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((50_257, 768), dtype=np.float32))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.process_time()
    spherical_kmeans(rows, 1000)
    seconds = time.process_time() - started
    torch.set_num_threads(threads)
    assert seconds <= 30.0
