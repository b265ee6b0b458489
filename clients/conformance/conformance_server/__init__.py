"""Servers for the conformance cases, correct or deliberately broken.

Input: the exports. Output: the addresses of one server per role. It may import the server.
"""
