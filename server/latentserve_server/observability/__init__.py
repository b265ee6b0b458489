"""Metrics, logs and traces of the server.

Events of calls, batches and model versions come in; Prometheus series, log lines and OpenTelemetry
spans go out. May import `services`, `repository` and `batching`, whose events it records.
"""
