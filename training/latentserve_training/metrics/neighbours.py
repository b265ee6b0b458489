"""Nearest neighbours in a space of codes or features, and what they say of two sets of points.

Exact, by the distances of all pairs, computed in chunks: ten thousand points against ten thousand
are 100 million distances, of which few are in memory at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PAIRS_AT_ONCE = 4_000_000  # 32 MB of float64


@dataclass(frozen=True)
class SetOverlap:
    """How far two sets of points cover each other; all in [0, 1] but the density."""

    precision: float  # the share of generated points inside the real points' neighbourhoods
    recall: float  # the share of real points inside the generated points' neighbourhoods
    density: float  # how many real neighbourhoods hold a generated point, divided by k
    coverage: float  # the share of real neighbourhoods that hold a generated point


def set_overlap(real: Tensor, generated: Tensor, k: int) -> SetOverlap:
    """Compare two sets by their k-nearest-neighbour balls.

    Precision and recall: Kynkäänniemi et al. 2019 (1904.06991), equation 1. Density and coverage:
    Naeem et al. 2020 (2002.09797), equations 3 and 4. A ball reaches from a point to its k-th
    nearest neighbour of its own set, itself not counted, and is open.

    Args:
        real: ``[n, d]``, more than k points.
        generated: ``[m, d]``, more than k points.
        k: 1 or more.
    """
    real, generated = real.double(), generated.double()
    real_radii, generated_radii = own_radii(real, k), own_radii(generated, k)
    balls_around = torch.zeros(len(generated), dtype=torch.int64)  # real balls, per generated point
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
        raise ValueError(f"{len(points)} points have no {k} neighbours each")
    radii = []
    for rows, squared in _chunks(points, points):
        # A point is no neighbour of its own; a twin of it is.
        squared[torch.arange(len(squared)), torch.arange(rows.start, rows.stop)] = torch.inf
        nearest = squared.topk(k, dim=1, largest=False).values  # ten times as fast as kthvalue
        radii.append(nearest[:, -1].sqrt())
    return torch.cat(radii)


def vote_of_nearest(queries: Tensor, points: Tensor, labels: Tensor, k: int) -> Tensor:
    """The commonest class, int64 ``[m]``, among the k nearest points of each query.

    Args:
        queries: ``[m, d]``.
        points: ``[n, d]``.
        labels: Of the points, int64 ``[n]``, counted from 0. Of equally common ones the smallest
            wins.
        k: 1 or more.
    """
    votes = []
    classes = int(labels.max()) + 1
    for _, squared in _chunks(queries, points):
        nearest = squared.topk(k, dim=1, largest=False).indices
        votes.append(functional.one_hot(labels[nearest], classes).sum(1).argmax(1))
    return torch.cat(votes)


def _chunks(rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows, and their squared distances to all columns, some rows at a time."""
    # Moved to the middle: the expanded square loses digits where points are far from 0.
    middle = columns.mean(0)
    rows, columns = rows - middle, columns - middle
    lengths = columns.square().sum(1)
    count = max(1, PAIRS_AT_ONCE // len(columns))
    for start in range(0, len(rows), count):
        chunk = rows[start : start + count]
        products = chunk @ columns.T
        squared = chunk.square().sum(1, keepdim=True) + lengths - 2.0 * products
        yield slice(start, start + len(chunk)), squared.clamp_(min=0.0)
