"""The alternative transport, on the public `grpc.aio` API.

`server` implements `transport.base.Transport` on an asyncio event loop: serialised requests come
in, serialised replies go out. May import `transport` (not `completion_queue`) and everything
below it.
"""
