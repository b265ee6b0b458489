"""Reads a model folder and checks its files against its manifest.

A folder path comes in; a validated `Manifest` or a `ManifestError` goes out. Imports no other
folder.
"""
