"""The default transport, on the completion queue of grpcio's synchronous server.

One polling thread accepts calls, reads serialised requests and sends serialised replies; short
batches also run on it. `server` implements `transport.base.Transport`. May import `transport`
(not `aio`) and everything below it.
"""
