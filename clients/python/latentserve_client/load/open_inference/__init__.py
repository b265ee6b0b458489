"""Load for any server of the Open Inference Protocol: Triton, KServe, MLServer, OpenVINO.

`messages.proto` has the messages; requests are made from what ModelMetadata says of the inputs.
"""

from latentserve_client.load.open_inference.preparation import prepare_oip

__all__ = ["prepare_oip"]
