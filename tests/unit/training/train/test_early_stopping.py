import pytest

from latentserve_training.errors import NonFiniteLossError
from latentserve_training.train.early_stopping import StepGuard, has_stalled

BAD = NonFiniteLossError("the loss is nan")


def test_steps_are_skipped_up_to_the_limit():
    guard = StepGuard(limit=3, skipped=1)
    guard.skip(7, BAD)
    guard.skip(8, BAD)
    assert guard.skipped == 3
    with pytest.raises(NonFiniteLossError, match=r"nan, in step 9 after 3 skipped steps .*= 3"):
        guard.skip(9, BAD)


def test_no_step_is_skipped_where_none_may_be():
    with pytest.raises(
        NonFiniteLossError, match=r"nan, in step 1 \(training.max_skipped_steps = 0"
    ):
        StepGuard(limit=0).skip(1, BAD)


@pytest.mark.parametrize(
    ("epoch", "best_epoch", "patience_epochs", "stalled"),
    [(5, 3, 0, False), (5, 3, 3, False), (6, 3, 3, True), (1, 1, 1, False), (0, 0, 2, False)],
)
def test_patience(epoch, best_epoch, patience_epochs, stalled):
    assert has_stalled(epoch, best_epoch, patience_epochs) is stalled
