"""ONNX graphs: description, conversion, inspection, parity checks, float16.

A torch module comes in, a checked ONNX graph goes out. May import `errors` and `pixels`, and no
kind of model.
"""
