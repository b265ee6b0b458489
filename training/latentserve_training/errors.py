"""Exceptions for errors that a user can correct.

::

    TrainingError
    ├── ConfigError           a preset, a key or a value
    ├── DataError             image files that are missing, damaged or too few
    ├── CheckpointError       a run folder that cannot be read or continued
    ├── NonFiniteLossError    training diverged
    ├── EvaluationError       a metric that cannot be computed with the given model or data
    ├── ProcessGroupError     another process of torchrun has failed
    └── ExportError           a model that must not be published
        └── ParityError       the ONNX graph differs from the torch model

The command line prints these as one line. Any other exception is a bug and keeps its traceback.
"""


class TrainingError(Exception):
    """Base class of all errors whose message tells the user how to correct them."""


class ConfigError(TrainingError):
    """A configuration with an unknown key or an invalid value."""


class DataError(TrainingError):
    """Image files that are missing, damaged or too few."""


class CheckpointError(TrainingError):
    """A run folder that cannot be read, or that belongs to another configuration."""


class NonFiniteLossError(TrainingError):
    """A loss or gradient that is NaN or infinite."""


class EvaluationError(TrainingError):
    """An unknown metric, a folder that is neither run nor export, or an altered classifier."""


class ProcessGroupError(TrainingError):
    """The other processes that train the same model cannot be reached."""


class ExportError(TrainingError):
    """A model that must not be published."""


class ParityError(ExportError):
    """An ONNX graph whose outputs differ from the torch model's."""
