"""Runs the graphs of a model with ONNX Runtime on CPU or GPU.

A batch of float32 arrays comes in; the output arrays go out. The only folder that imports
onnxruntime. May import `manifest` and `batching`.
"""
