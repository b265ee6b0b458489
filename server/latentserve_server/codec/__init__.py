"""Converts between protobuf messages and numpy arrays.

Request bytes come in; checked views of rows go out, and reply bytes are built from output rows.
The only folder that knows protobuf and numpy at once. May import `manifest` and `batching`.
"""
