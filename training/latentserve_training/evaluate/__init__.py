"""Evaluation of a trained model on the test images.

A run or an export, and images come in; each metric with its baseline goes out. May import
`train`, `models`, `metrics` and everything below them.
"""
