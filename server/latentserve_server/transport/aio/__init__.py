"""The other transport, on the public `grpc.aio` API.

`server` implements `transport.base.Transport` on an asyncio event loop. May import `transport`
(not `completion_queue`) and everything below it.
"""
