"""Layers, networks, likelihoods and losses in torch.

Tensors come in, tensors go out; nothing here trains. May import `pixels`, `errors` and
`distributed`.
"""
