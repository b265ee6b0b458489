"""Modules of benchmarks/run.py: loads, servers, measurement rounds, report and plots.

Model folders and a plan of loads come in; results.json, RESULTS.md and plots go out. May import
`h2load`, `mlp_model` and the client, but not `run`.
"""
