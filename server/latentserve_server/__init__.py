"""gRPC server for generative models of images, on ONNX Runtime.

A request passes through `transport` (gRPC), `services` (one function for each RPC), `codec`
(protobuf to numpy), `batching` (queue and merge) and `engine` (ONNX Runtime); the reply takes
the same path back. None of these folders imports one to its left.
"""

import os

# ONNX Runtime's wheels upload telemetry, and store it in a database under ~/.cache, unless this
# variable is set before the import. The server must do neither.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
