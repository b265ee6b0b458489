"""Load on servers of the Open Inference Protocol: Triton, KServe, MLServer, OpenVINO Model Server.

Comes in: a `LoadTestConfig` and the ModelMetadata of the server. Goes out: a `PreparedLoad`, with
messages of `messages.proto`. Knows `plan`, `measure` and `drive`.
"""

from latentserve_client.load.open_inference.preparation import prepare_oip

__all__ = ["prepare_oip"]
