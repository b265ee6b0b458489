"""Turns finished calls into statistics, and compares replies with references.

Comes in: call records and serialized replies of `drive`, and the metrics of the server. Goes out:
histograms, summaries, confidence intervals and validation counts. Knows only `plan`.
"""
