"""The wire contract of latentserve, as generated Python code."""
