"""Estimators of metrics and baselines, independent of the model.

Arrays of images, features or latents come in, numbers go out. May import `nn` and `graphs`.
"""
