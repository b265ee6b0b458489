"""Python client of latentserve: NumPy arrays in, NumPy arrays out.

    from latentserve_client import Client

    with Client("127.0.0.1:50051") as client:
        for model in client.models():
            print(model.name, model.operations)
        images = client.sample(16, model="mnist-vae", seed=1).images  # float32 [16, 1, 28, 28]

`AsyncClient` has the same methods for asyncio. `Images` documents the accepted arrays, files and
PIL images. Every failed call raises a `LatentserveError`.
"""

from latentserve_client._async_client import AsyncClient
from latentserve_client._base import OutputFormat
from latentserve_client._client import Client
from latentserve_client._errors import (
    BadReply,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    LatentserveError,
    MessageTooLarge,
    NotFound,
    OperationNotSupported,
    QueueFull,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)
from latentserve_client._images import ImageFile, Images
from latentserve_client._models import (
    ImageSpec,
    LatentSpec,
    Likelihood,
    Limits,
    Metric,
    Model,
    ModelList,
    ReloadOutcome,
)
from latentserve_client._results import (
    DecodeResult,
    DenoiseResult,
    EncodeResult,
    ImagesResult,
    ReconstructResult,
    SampleChunk,
    SampleResult,
    ServedBy,
    Timings,
)

__all__ = [
    "AsyncClient",
    "BadReply",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "DecodeResult",
    "DenoiseResult",
    "EncodeResult",
    "FailedPrecondition",
    "ImageFile",
    "ImageSpec",
    "Images",
    "ImagesResult",
    "InternalError",
    "InvalidArgument",
    "LatentSpec",
    "LatentserveError",
    "Likelihood",
    "Limits",
    "MessageTooLarge",
    "Metric",
    "Model",
    "ModelList",
    "NotFound",
    "OperationNotSupported",
    "OutputFormat",
    "QueueFull",
    "ReconstructResult",
    "ReloadOutcome",
    "ResourceExhausted",
    "SampleChunk",
    "SampleResult",
    "ServedBy",
    "Timings",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
]
