"""Carries calls over gRPC: bytes in, bytes out.

`base` is the interface that the application knows; `completion_queue` and `aio` implement it,
and the modules here are their common parts: addresses, TLS and tokens, drain, deadlines. A
transport gives a service the request's bytes, a deadline and a callback, and sends the bytes of
the reply. May import `observability`, `services` and everything below them.
"""
