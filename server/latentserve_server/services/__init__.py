"""Implements each RPC, independent of the transport.

A method takes the request's bytes, a deadline and a callback; it resolves the model, submits
rows to its batcher, and calls back with a `Reply` that builds the bytes. Imports neither grpc nor
asyncio. May import `codec`, `repository`, `sampling`, `manifest` and `batching`.
"""
