"""Runs several worker processes on one port as one server.

With `--workers N`, the control loop starts, watches and replaces workers, and aggregates their
metrics and reloads. `worker` is the program of one worker and may import the application; the
other modules import neither grpc nor onnxruntime.
"""
