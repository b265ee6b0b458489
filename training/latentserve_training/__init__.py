"""Trains generative autoencoders with torch and exports them to ONNX.

The server reads what :mod:`latentserve_training.export` writes; the two share no code, only
``manifest.schema.json``. Nothing here knows gRPC.
"""
