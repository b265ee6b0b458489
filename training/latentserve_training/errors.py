"""What can go wrong that a user can put right.

::

    TrainingError
    ├── ConfigError           a preset, a key or a value
    ├── DataError             image files that are missing, broken or too few
    ├── CheckpointError       a run folder that cannot be read or continued
    ├── NonFiniteLossError    training diverged
    ├── EvaluationError       what cannot be measured, or not with what was given
    ├── ProcessGroupError     another process of torchrun has failed
    └── ExportError           a model that must not be published
        └── ParityError       the ONNX graph differs from the torch model

The command line prints these as one line; anything else is a bug and keeps its traceback.
"""


class TrainingError(Exception):
    """Any error whose message tells the user what to do."""


class ConfigError(TrainingError):
    """A configuration that names an unknown key or holds an impossible value."""


class DataError(TrainingError):
    """Image files that are missing, damaged or too few."""


class CheckpointError(TrainingError):
    """A run folder that cannot be read, or that belongs to another configuration."""


class NonFiniteLossError(TrainingError):
    """A loss or gradient that is NaN or infinite."""


class EvaluationError(TrainingError):
    """What cannot be measured: an unknown metric, no run and no export, an altered classifier."""


class ProcessGroupError(TrainingError):
    """The other processes that train the same model cannot be reached."""


class ExportError(TrainingError):
    """A model that must not be published as it is."""


class ParityError(ExportError):
    """An ONNX graph whose outputs differ from the torch model's."""
