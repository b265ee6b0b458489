from latentserve.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Operation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_UNSPECIFIED: _ClassVar[Operation]
    OPERATION_ENCODE: _ClassVar[Operation]
    OPERATION_DECODE: _ClassVar[Operation]
    OPERATION_RECONSTRUCT: _ClassVar[Operation]
    OPERATION_DENOISE: _ClassVar[Operation]
    OPERATION_SAMPLE: _ClassVar[Operation]
OPERATION_UNSPECIFIED: Operation
OPERATION_ENCODE: Operation
OPERATION_DECODE: Operation
OPERATION_RECONSTRUCT: Operation
OPERATION_DENOISE: Operation
OPERATION_SAMPLE: Operation

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "default_model")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MODEL_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    default_model: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., default_model: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _tensor_pb2.ModelRef
    def __init__(self, model: _Optional[_Union[_tensor_pb2.ModelRef, _Mapping]] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ReloadModelsRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class ReloadModelsResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[ReloadOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[ReloadOutcome, _Mapping]]] = ...) -> None: ...

class ReloadOutcome(_message.Message):
    __slots__ = ("name", "version", "action", "reason")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACTION_UNSPECIFIED: _ClassVar[ReloadOutcome.Action]
        ACTION_UNCHANGED: _ClassVar[ReloadOutcome.Action]
        ACTION_LOADED: _ClassVar[ReloadOutcome.Action]
        ACTION_REFUSED: _ClassVar[ReloadOutcome.Action]
        ACTION_REMOVED: _ClassVar[ReloadOutcome.Action]
    ACTION_UNSPECIFIED: ReloadOutcome.Action
    ACTION_UNCHANGED: ReloadOutcome.Action
    ACTION_LOADED: ReloadOutcome.Action
    ACTION_REFUSED: ReloadOutcome.Action
    ACTION_REMOVED: ReloadOutcome.Action
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    action: ReloadOutcome.Action
    reason: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., action: _Optional[_Union[ReloadOutcome.Action, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "state", "reason", "digest", "kind", "description", "image", "latent", "operations", "likelihood", "limits", "provider", "metrics")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Model.State]
        STATE_LOADING: _ClassVar[Model.State]
        STATE_READY: _ClassVar[Model.State]
        STATE_REFUSED: _ClassVar[Model.State]
    STATE_UNSPECIFIED: Model.State
    STATE_LOADING: Model.State
    STATE_READY: Model.State
    STATE_REFUSED: Model.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LATENT_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    LIKELIHOOD_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    state: Model.State
    reason: str
    digest: str
    kind: str
    description: str
    image: ImageSpec
    latent: LatentSpec
    operations: _containers.RepeatedScalarFieldContainer[Operation]
    likelihood: Likelihood
    limits: Limits
    provider: str
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[Model.State, str]] = ..., reason: _Optional[str] = ..., digest: _Optional[str] = ..., kind: _Optional[str] = ..., description: _Optional[str] = ..., image: _Optional[_Union[ImageSpec, _Mapping]] = ..., latent: _Optional[_Union[LatentSpec, _Mapping]] = ..., operations: _Optional[_Iterable[_Union[Operation, str]]] = ..., likelihood: _Optional[_Union[Likelihood, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., provider: _Optional[str] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ...) -> None: ...

class ImageSpec(_message.Message):
    __slots__ = ("channels", "height", "width")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    channels: int
    height: int
    width: int
    def __init__(self, channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class LatentSpec(_message.Message):
    __slots__ = ("dim", "prior", "has_log_variance", "mixture_components")
    DIM_FIELD_NUMBER: _ClassVar[int]
    PRIOR_FIELD_NUMBER: _ClassVar[int]
    HAS_LOG_VARIANCE_FIELD_NUMBER: _ClassVar[int]
    MIXTURE_COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    dim: int
    prior: str
    has_log_variance: bool
    mixture_components: int
    def __init__(self, dim: _Optional[int] = ..., prior: _Optional[str] = ..., has_log_variance: _Optional[bool] = ..., mixture_components: _Optional[int] = ...) -> None: ...

class Likelihood(_message.Message):
    __slots__ = ("family", "sigma")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    SIGMA_FIELD_NUMBER: _ClassVar[int]
    family: str
    sigma: float
    def __init__(self, family: _Optional[str] = ..., sigma: _Optional[float] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_request_rows", "max_stream_rows", "max_batch_rows")
    MAX_REQUEST_ROWS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_ROWS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    max_request_rows: int
    max_stream_rows: int
    max_batch_rows: int
    def __init__(self, max_request_rows: _Optional[int] = ..., max_stream_rows: _Optional[int] = ..., max_batch_rows: _Optional[int] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value", "unit", "baseline", "baseline_name", "samples", "estimator")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    BASELINE_NAME_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    unit: str
    baseline: float
    baseline_name: str
    samples: int
    estimator: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., baseline: _Optional[float] = ..., baseline_name: _Optional[str] = ..., samples: _Optional[int] = ..., estimator: _Optional[str] = ...) -> None: ...
