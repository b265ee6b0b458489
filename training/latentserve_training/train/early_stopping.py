"""Conditions that end a run early: too many non-finite steps, or no progress."""

from latentserve_training.errors import NonFiniteLossError


class StepGuard:
    """Counts skipped steps and raises an error when a run has too many.

    A single bad batch must not end a long run, but a run must not continue if every step is bad.
    """

    def __init__(self, limit: int, skipped: int = 0) -> None:
        """Args: limit: Steps that a run may skip; skipped: Steps skipped in earlier epochs."""
        self._limit = limit
        self.skipped = skipped

    def skip(self, step: int, error: NonFiniteLossError) -> None:
        """Count a step that was skipped because of ``error``.

        Raises:
            NonFiniteLossError: If the run has already reached the limit.
        """
        if self.skipped >= self._limit:
            before = f" after {self.skipped} skipped steps" if self._limit else ""
            raise NonFiniteLossError(
                f"{error}, in step {step}{before} (training.max_skipped_steps = {self._limit})"
            ) from error
        self.skipped += 1


def has_stalled(epoch: int, best_epoch: int, patience_epochs: int) -> bool:
    """Whether the validation loss has not improved for ``patience_epochs``; 0 turns this off."""
    return patience_epochs > 0 and epoch - best_epoch >= patience_epochs
