"""Reproducible random numbers, and the priors of latents.

A seed, an offset and a number of rows come in; latents go out, the same on every machine
(docs/sampling.md is the specification). May import `manifest`.
"""
