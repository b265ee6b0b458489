"""Export of a run as a model folder, `exports/<name>/<version>/`.

A run folder comes in; ONNX graphs, golden outputs and a manifest go out. May import `train`,
`models`, `graphs` and everything below them.
"""
