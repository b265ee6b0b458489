"""Conformance runner of the Python client, and an example for other languages.

Input: the cases and the addresses of the servers. Output: one line per failed case and a JSON
report. It may import the client and the stubs, but not the server.
"""
