"""The default transport, on the completion queue of grpcio's synchronous server.

One polling thread accepts calls, reads requests and sends replies; short batches run on it as
well. `server` implements `transport.base.Transport`. May import `transport` (not `aio`) and
everything below it.
"""
