"""Training of a model, from a configuration to its best checkpoint.

A `RunConfig` and images come in; a run folder with checkpoints, logs and a fitted prior goes
out. May import `models` and everything below it.
"""
