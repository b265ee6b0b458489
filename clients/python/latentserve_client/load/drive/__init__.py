"""Sends the load: connections, generators, processes, runs and sweeps.

Comes in: the configuration and the workload of `plan`. Goes out: a `RunResult` or `SweepResult`
with the statistics of `measure`. Knows only these two folders of the load tester.
"""
