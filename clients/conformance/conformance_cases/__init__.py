"""Generator of the conformance cases.

Input: the exports and the generator of docs/sampling.md. Output: the JSON and binary files of
`cases/`. It may import the client and the stubs, but not the server.
"""
