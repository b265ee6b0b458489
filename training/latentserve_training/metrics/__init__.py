"""Estimators of metrics and baselines, independent of the kind of model.

Arrays of images, features or latents come in, metric values go out. May import `nn`, `graphs` and
the modules below them.
"""
