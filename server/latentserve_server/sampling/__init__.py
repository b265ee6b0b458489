"""Reproducible random numbers, and the priors that latents are sampled from.

A seed, an offset and a row count come in; latents go out, the same on every machine
(docs/sampling.md is the specification). May import `manifest`.
"""
