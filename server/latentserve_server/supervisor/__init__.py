"""Supervisor of several worker processes that serve one port.

With `--workers N`, the control loop starts, monitors and restarts workers; settings and signals
come in, one set of metrics and one result per reload go out. `worker`, the program of one worker
process, may import the application; the other modules may import `repository` and
`observability`, but neither grpc nor onnxruntime.
"""
