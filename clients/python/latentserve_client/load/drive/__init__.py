"""Sending the load: connections, generators, processes, runs and sweeps."""
