"""The parts of benchmarks/run.py: what is measured, with whom, and what is written about it."""
