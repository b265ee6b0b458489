"""What ends a run before its last epoch: steps that are not finite, and epochs without progress."""

from latentserve_training.errors import NonFiniteLossError


class StepGuard:
    """Counts the steps that had to be skipped, and says when there were too many.

    A single bad batch must not end a long run; a run in which every step is bad must not go on
    and pretend.
    """

    def __init__(self, limit: int, skipped: int = 0) -> None:
        """Args: limit: Steps that a run may skip; skipped: Those of the epochs before."""
        self._limit = limit
        self.skipped = skipped

    def skip(self, step: int, error: NonFiniteLossError) -> None:
        """Count a step that changed nothing, because of ``error``.

        Raises:
            NonFiniteLossError: If the run has skipped as many as it may already.
        """
        if self.skipped >= self._limit:
            before = f" after {self.skipped} skipped steps" if self._limit else ""
            raise NonFiniteLossError(
                f"{error}, in step {step}{before} (training.max_skipped_steps = {self._limit})"
            ) from error
        self.skipped += 1


def has_stalled(epoch: int, best_epoch: int, patience_epochs: int) -> bool:
    """Whether the validation loss has not improved for so many epochs; 0 waits for ever."""
    return patience_epochs > 0 and epoch - best_epoch >= patience_epochs
