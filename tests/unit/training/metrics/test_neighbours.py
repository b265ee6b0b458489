"""Each metric against its definition, computed point by point."""

import pytest
import torch

from latentserve_training.metrics import neighbours
from latentserve_training.metrics.neighbours import own_radii, set_overlap, vote_of_nearest

K = 3


def points(count, seed, dim=4, centre=0.0):
    return centre + torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def brute_force(real, generated, k):
    def distance(a, b):
        return float((a - b).double().square().sum().sqrt())

    def radius(index, among):
        return sorted(distance(among[index], other) for j, other in enumerate(among) if j != index)[
            k - 1
        ]

    real_radii = [radius(index, real) for index in range(len(real))]
    generated_radii = [radius(index, generated) for index in range(len(generated))]
    inside = [[distance(r, g) < real_radii[i] for g in generated] for i, r in enumerate(real)]
    recalled = [
        any(distance(r, g) < generated_radii[j] for j, g in enumerate(generated)) for r in real
    ]
    columns = list(zip(*inside, strict=True))
    return (
        sum(any(column) for column in columns) / len(generated),
        sum(recalled) / len(real),
        sum(sum(column) for column in columns) / (k * len(generated)),
        sum(any(row) for row in inside) / len(real),
    )


@pytest.mark.parametrize("centre", [0.0, 1.0])
@pytest.mark.parametrize("pairs_at_once", [1, 200, 1 << 30])
def test_overlap_is_its_definition(centre, pairs_at_once, monkeypatch):
    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", pairs_at_once)
    real, generated = points(40, 0), points(30, 1, centre=centre)
    overlap = set_overlap(real, generated, K)
    expected = brute_force(real, generated, K)
    assert tuple(vars(overlap).values()) == pytest.approx(expected)
    assert 0 < overlap.coverage < 1


def test_far_points_overlap_with_nothing():
    overlap = set_overlap(points(20, 0), points(20, 1, centre=100.0), K)
    assert tuple(vars(overlap).values()) == (0.0, 0.0, 0.0, 0.0)


def test_a_collapsed_generator_has_precision_without_recall_or_coverage():
    real = points(200, 0)
    collapsed = real[:1] + 1e-3 * points(50, 1)
    overlap = set_overlap(real, collapsed, K)
    assert overlap.precision == 1.0
    assert overlap.recall < 0.05
    assert overlap.coverage < 0.2


def test_distances_far_from_the_origin_keep_their_precision():
    near, far = points(30, 0), points(30, 0).double() + 1e6
    assert own_radii(far, K) == pytest.approx(own_radii(near.double(), K), rel=1e-6)


def test_duplicates_are_neighbours_at_distance_0():
    twice = points(10, 0).double().repeat(2, 1)
    assert own_radii(twice, 1) == pytest.approx(torch.zeros(20), abs=1e-7)
    assert (own_radii(twice, 2) > 0.1).all()


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="3 points have fewer than 3 neighbours each"):
        own_radii(points(3, 0), 3)


def test_the_vote_is_that_of_scikit_learn(monkeypatch):
    from sklearn.neighbors import KNeighborsClassifier

    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", 700)
    train, labels = points(100, 0), torch.arange(100) % 4
    queries = points(50, 1)
    expected = KNeighborsClassifier(5, algorithm="brute").fit(train.numpy(), labels.numpy())
    votes = vote_of_nearest(queries, train, labels, 5)
    assert votes.tolist() == expected.predict(queries.numpy()).tolist()
