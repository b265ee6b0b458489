"""A gRPC server for generative autoencoders, on ONNX Runtime.

The way of one request: `transport_aio` (gRPC) -> `service` (which RPC) -> `codec`
(protobuf to numpy) -> `batcher` (queue, merge) -> `engine` (ONNX Runtime) and back.
None of these imports one that stands left of it.
"""

import os

# The wheels of ONNX Runtime upload telemetry, and keep a database for it under ~/.cache, unless
# this is set before they are imported. A server neither calls home nor needs to write there.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
