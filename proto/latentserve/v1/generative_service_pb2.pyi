from latentserve.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EncodeRequest(_message.Message):
    __slots__ = ("model", "images", "seed")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    model: _tensor_pb2.ModelRef
    images: _tensor_pb2.Images
    seed: int
    def __init__(self, model: _Optional[_Union[_tensor_pb2.ModelRef, _Mapping]] = ..., images: _Optional[_Union[_tensor_pb2.Images, _Mapping]] = ..., seed: _Optional[int] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("latents", "log_variance", "seed", "served_by", "timings")
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    LOG_VARIANCE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    latents: _tensor_pb2.Tensor
    log_variance: _tensor_pb2.Tensor
    seed: int
    served_by: _tensor_pb2.ServedBy
    timings: _tensor_pb2.Timings
    def __init__(self, latents: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., log_variance: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., seed: _Optional[int] = ..., served_by: _Optional[_Union[_tensor_pb2.ServedBy, _Mapping]] = ..., timings: _Optional[_Union[_tensor_pb2.Timings, _Mapping]] = ...) -> None: ...

class DecodeRequest(_message.Message):
    __slots__ = ("model", "latents", "output_format")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    model: _tensor_pb2.ModelRef
    latents: _tensor_pb2.Tensor
    output_format: _tensor_pb2.ImageFormat
    def __init__(self, model: _Optional[_Union[_tensor_pb2.ModelRef, _Mapping]] = ..., latents: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., output_format: _Optional[_Union[_tensor_pb2.ImageFormat, str]] = ...) -> None: ...

class DecodeResponse(_message.Message):
    __slots__ = ("images", "served_by", "timings")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    images: _tensor_pb2.Images
    served_by: _tensor_pb2.ServedBy
    timings: _tensor_pb2.Timings
    def __init__(self, images: _Optional[_Union[_tensor_pb2.Images, _Mapping]] = ..., served_by: _Optional[_Union[_tensor_pb2.ServedBy, _Mapping]] = ..., timings: _Optional[_Union[_tensor_pb2.Timings, _Mapping]] = ...) -> None: ...

class ReconstructRequest(_message.Message):
    __slots__ = ("model", "images", "output_format")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    model: _tensor_pb2.ModelRef
    images: _tensor_pb2.Images
    output_format: _tensor_pb2.ImageFormat
    def __init__(self, model: _Optional[_Union[_tensor_pb2.ModelRef, _Mapping]] = ..., images: _Optional[_Union[_tensor_pb2.Images, _Mapping]] = ..., output_format: _Optional[_Union[_tensor_pb2.ImageFormat, str]] = ...) -> None: ...

class ReconstructResponse(_message.Message):
    __slots__ = ("images", "squared_error", "served_by", "timings")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    SQUARED_ERROR_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    images: _tensor_pb2.Images
    squared_error: _containers.RepeatedScalarFieldContainer[float]
    served_by: _tensor_pb2.ServedBy
    timings: _tensor_pb2.Timings
    def __init__(self, images: _Optional[_Union[_tensor_pb2.Images, _Mapping]] = ..., squared_error: _Optional[_Iterable[float]] = ..., served_by: _Optional[_Union[_tensor_pb2.ServedBy, _Mapping]] = ..., timings: _Optional[_Union[_tensor_pb2.Timings, _Mapping]] = ...) -> None: ...

class DenoiseRequest(_message.Message):
    __slots__ = ("model", "images", "output_format")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    model: _tensor_pb2.ModelRef
    images: _tensor_pb2.Images
    output_format: _tensor_pb2.ImageFormat
    def __init__(self, model: _Optional[_Union[_tensor_pb2.ModelRef, _Mapping]] = ..., images: _Optional[_Union[_tensor_pb2.Images, _Mapping]] = ..., output_format: _Optional[_Union[_tensor_pb2.ImageFormat, str]] = ...) -> None: ...

class DenoiseResponse(_message.Message):
    __slots__ = ("images", "served_by", "timings")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    images: _tensor_pb2.Images
    served_by: _tensor_pb2.ServedBy
    timings: _tensor_pb2.Timings
    def __init__(self, images: _Optional[_Union[_tensor_pb2.Images, _Mapping]] = ..., served_by: _Optional[_Union[_tensor_pb2.ServedBy, _Mapping]] = ..., timings: _Optional[_Union[_tensor_pb2.Timings, _Mapping]] = ...) -> None: ...

class SampleRequest(_message.Message):
    __slots__ = ("model", "count", "seed", "offset", "temperature", "output_format", "include_latents")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_LATENTS_FIELD_NUMBER: _ClassVar[int]
    model: _tensor_pb2.ModelRef
    count: int
    seed: int
    offset: int
    temperature: float
    output_format: _tensor_pb2.ImageFormat
    include_latents: bool
    def __init__(self, model: _Optional[_Union[_tensor_pb2.ModelRef, _Mapping]] = ..., count: _Optional[int] = ..., seed: _Optional[int] = ..., offset: _Optional[int] = ..., temperature: _Optional[float] = ..., output_format: _Optional[_Union[_tensor_pb2.ImageFormat, str]] = ..., include_latents: _Optional[bool] = ...) -> None: ...

class SampleResponse(_message.Message):
    __slots__ = ("images", "latents", "seed", "served_by", "timings")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    images: _tensor_pb2.Images
    latents: _tensor_pb2.Tensor
    seed: int
    served_by: _tensor_pb2.ServedBy
    timings: _tensor_pb2.Timings
    def __init__(self, images: _Optional[_Union[_tensor_pb2.Images, _Mapping]] = ..., latents: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., seed: _Optional[int] = ..., served_by: _Optional[_Union[_tensor_pb2.ServedBy, _Mapping]] = ..., timings: _Optional[_Union[_tensor_pb2.Timings, _Mapping]] = ...) -> None: ...

class SampleStreamRequest(_message.Message):
    __slots__ = ("model", "count", "seed", "offset", "temperature", "output_format", "include_latents", "chunk_rows")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_LATENTS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_ROWS_FIELD_NUMBER: _ClassVar[int]
    model: _tensor_pb2.ModelRef
    count: int
    seed: int
    offset: int
    temperature: float
    output_format: _tensor_pb2.ImageFormat
    include_latents: bool
    chunk_rows: int
    def __init__(self, model: _Optional[_Union[_tensor_pb2.ModelRef, _Mapping]] = ..., count: _Optional[int] = ..., seed: _Optional[int] = ..., offset: _Optional[int] = ..., temperature: _Optional[float] = ..., output_format: _Optional[_Union[_tensor_pb2.ImageFormat, str]] = ..., include_latents: _Optional[bool] = ..., chunk_rows: _Optional[int] = ...) -> None: ...

class SampleStreamResponse(_message.Message):
    __slots__ = ("images", "latents", "seed", "offset", "served_by", "timings")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    images: _tensor_pb2.Images
    latents: _tensor_pb2.Tensor
    seed: int
    offset: int
    served_by: _tensor_pb2.ServedBy
    timings: _tensor_pb2.Timings
    def __init__(self, images: _Optional[_Union[_tensor_pb2.Images, _Mapping]] = ..., latents: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., seed: _Optional[int] = ..., offset: _Optional[int] = ..., served_by: _Optional[_Union[_tensor_pb2.ServedBy, _Mapping]] = ..., timings: _Optional[_Union[_tensor_pb2.Timings, _Mapping]] = ...) -> None: ...
