"""Measuring the load: call records, histograms, summaries, validation, server metrics."""
