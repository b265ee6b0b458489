import numpy as np
import pytest

from latentserve_client.load.plan.sizes import BadSize, parse_sizes


def sampled(text, count=1000, limit=10_000):
    return np.array(parse_sizes(text).sample(count, limit, np.random.default_rng(0)))


def test_a_number_is_constant():
    assert parse_sizes("16").is_fixed
    assert set(sampled("16")) == {16}


def test_a_range_is_uniform():
    sizes = sampled("1-4")
    assert np.bincount(sizes)[1:].tolist() == [250] * 4
    assert not np.array_equal(sizes, np.sort(sizes))


def test_choices_have_their_weights():
    sizes = sampled("8*1|2*64")
    assert (sizes == 1).sum() == 800
    assert (sizes == 64).sum() == 200


def test_a_small_pool_has_the_proportions_too():
    assert sorted(sampled("1|16|64", count=3)) == [1, 16, 64]


def test_geometric_sizes_have_the_mean():
    sizes = sampled("~16")
    assert sizes.mean() == pytest.approx(16, rel=0.05)
    assert sizes.min() == 1
    assert sizes.max() > 60
    assert set(sampled("~1")) == {1}


def test_sizes_are_clipped_to_the_limit():
    assert sampled("~16", limit=20).max() == 20
    assert parse_sizes("1|64").largest == 64
    assert parse_sizes("~16").largest is None


@pytest.mark.parametrize("text", ["", "0", "-1", "4-2", "1|", "x*3", "~", "~0", "1.5", "1-2-3"])
def test_says_what_is_expected(text):
    with pytest.raises(BadSize, match=r"rows|below"):
        parse_sizes(text)
