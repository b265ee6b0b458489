"""Kinds of model, one file each; :mod:`.registry` maps their names to classes.

Images come in; losses, latents and decoded images go out, and a description of the ONNX graphs to
export. May import `nn`, `optim`, `graphs`, `metrics` and the modules below them.
"""
