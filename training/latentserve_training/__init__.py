"""Trains generative models of images with torch and exports them to ONNX.

The server reads the model folders that :mod:`latentserve_training.export` writes. The two packages
share no code, only ``manifest.schema.json``. Nothing here depends on gRPC.
"""

import os

# The wheels of ONNX Runtime upload telemetry, and keep a database for it under ~/.cache, unless
# this variable is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
