"""Harness of `make conformance`.

Input: the conformance.json of every client. It builds and runs their runners against the servers
of `conformance_server`, checks their reports, and prints one table.
"""
