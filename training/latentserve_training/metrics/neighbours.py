"""Metrics from nearest neighbours in a space of latents or features.

They are exact: the distances of all pairs are computed, in chunks to bound the memory. Two sets of
ten thousand points have 100 million distances.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PAIRS_AT_ONCE = 4_000_000  # 32 MB of float64


@dataclass(frozen=True)
class SetOverlap:
    """Overlap of two sets of points; all values except the density lie in [0, 1]."""

    precision: float  # share of generated points inside the neighbourhoods of real points
    recall: float  # share of real points inside the neighbourhoods of generated points
    density: float  # mean number of real neighbourhoods around a generated point, divided by k
    coverage: float  # share of real neighbourhoods that contain a generated point


def set_overlap(real: Tensor, generated: Tensor, k: int) -> SetOverlap:
    """Compare two sets by their k-nearest-neighbour balls.

    Precision and recall: Kynkäänniemi et al. 2019 (1904.06991), equation 1. Density and coverage:
    Naeem et al. 2020 (2002.09797), equations 3 and 4. The ball of a point is open, and its radius
    is the distance to the k-th nearest other point of the same set.

    Args:
        real: ``[n, d]``, more than k points.
        generated: ``[m, d]``, more than k points.
        k: 1 or more.
    """
    real, generated = real.double(), generated.double()
    real_radii, generated_radii = own_radii(real, k), own_radii(generated, k)
    balls_around = torch.zeros(len(generated), dtype=torch.int64)  # real balls per generated point
    recalled, covered = 0, 0
    for rows, squared in _chunks(real, generated):
        inside_real = squared < real_radii[rows, None].square()
        balls_around += inside_real.sum(0)
        covered += int(inside_real.any(1).sum())
        recalled += int((squared < generated_radii.square()).any(1).sum())
    return SetOverlap(
        precision=float((balls_around > 0).double().mean()),
        recall=recalled / len(real),
        density=float(balls_around.double().mean()) / k,
        coverage=covered / len(real),
    )


def own_radii(points: Tensor, k: int) -> Tensor:
    """The distance of each point of ``[n, d]`` to its k-th nearest neighbour among the others."""
    if len(points) <= k:
        raise ValueError(f"{len(points)} points have fewer than {k} neighbours each")
    radii = []
    for rows, squared in _chunks(points, points):
        # A point is not its own neighbour; a duplicate of it is.
        squared[torch.arange(len(squared)), torch.arange(rows.start, rows.stop)] = torch.inf
        nearest = squared.topk(k, dim=1, largest=False).values  # ten times faster than kthvalue
        radii.append(nearest[:, -1].sqrt())
    return torch.cat(radii)


def vote_of_nearest(queries: Tensor, points: Tensor, labels: Tensor, k: int) -> Tensor:
    """The most frequent class, int64 ``[m]``, among the k nearest points of each query.

    Args:
        queries: ``[m, d]``.
        points: ``[n, d]``.
        labels: Labels of the points, int64 ``[n]``, counted from 0. Ties go to the smallest label.
        k: 1 or more.
    """
    votes = []
    classes = int(labels.max()) + 1
    for _, squared in _chunks(queries, points):
        nearest = squared.topk(k, dim=1, largest=False).indices
        votes.append(functional.one_hot(labels[nearest], classes).sum(1).argmax(1))
    return torch.cat(votes)


def _chunks(rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of rows, and their squared distances to all columns."""
    # Centred, because the expanded square loses precision if points are far from 0.
    middle = columns.mean(0)
    rows, columns = rows - middle, columns - middle
    lengths = columns.square().sum(1)
    count = max(1, PAIRS_AT_ONCE // len(columns))
    for start in range(0, len(rows), count):
        chunk = rows[start : start + count]
        products = chunk @ columns.T
        squared = chunk.square().sum(1, keepdim=True) + lengths - 2.0 * products
        yield slice(start, start + len(chunk)), squared.clamp_(min=0.0)
