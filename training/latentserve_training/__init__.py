"""Trains generative autoencoders with torch and exports them to ONNX.

The server reads what :mod:`latentserve_training.export` writes; the two share no code, only
``manifest.schema.json``. Nothing here knows gRPC.
"""

import os

# The wheels of ONNX Runtime upload telemetry, and keep a database for it under ~/.cache, unless
# this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
