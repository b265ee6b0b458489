"""A gRPC server for generative autoencoders, on ONNX Runtime.

The way of one request: `transport_aio` (gRPC) -> `service` (which RPC) -> `codec`
(protobuf to numpy) -> `batcher` (queue, merge) -> `engine` (ONNX Runtime) and back.
None of these imports one that stands left of it.
"""

__version__ = "0.1.0"
