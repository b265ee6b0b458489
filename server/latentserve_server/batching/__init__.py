"""Merges queued requests into batches and splits the outputs by request.

Rows with a deadline and a callback come in; a `Completion` for each request goes out. Knows
neither gRPC nor ONNX Runtime. Imports no other folder.
"""
