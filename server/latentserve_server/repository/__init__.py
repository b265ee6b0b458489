"""The model repository: finds, loads, replaces and unloads model versions.

The folder of exports comes in; a model version that is ready to serve goes out by name and
version. May import `engine` (its interface), `sampling`, `manifest` and `batching`.
"""
