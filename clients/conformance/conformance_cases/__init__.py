"""Computes the conformance cases from the exports and the documents, without the server."""
