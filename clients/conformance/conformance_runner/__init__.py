"""The conformance runner of the Python client, and an example for other languages."""
