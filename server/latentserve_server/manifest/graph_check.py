"""Safety check of a graph file before ONNX Runtime opens it.

A graph itself holds no code. But a node can use an operator from outside of ONNX, some of which
load libraries or engine files. A tensor can be stored in another file, or, with a marker of ONNX
Runtime, at an address in the memory of the process. This module allows only operators of the ONNX
domains, and tensors in the graph or in a file that the manifest lists.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from latentserve_server.errors import ManifestError

_SUFFIX = ".onnx"
_DOMAINS = (b"", b"ai.onnx", b"ai.onnx.ml")
# The metadata key with which a graph sets session options.
_SESSION_OPTIONS = b"ort_config"
_EXTERNAL = 1

_TEXT, _NUMBER = "text", "number"
# The relevant part of onnx.proto: message -> field -> (number, type).
_FORMAT: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {
        "graphs": (7, "Graph"),
        "metadata": (14, "Entry"),
        "training": (20, "Training"),
        "functions": (25, "Function"),
    },
    "Training": {"initializations": (1, "Graph"), "algorithms": (2, "Graph")},
    "Function": {"nodes": (7, "Node"), "attributes": (11, "Attribute")},
    "Graph": {
        "nodes": (1, "Node"),
        "initializers": (5, "Tensor"),
        "sparse_initializers": (15, "SparseTensor"),
    },
    "Node": {"operators": (4, _TEXT), "attributes": (5, "Attribute"), "domains": (7, _TEXT)},
    "Attribute": {
        "tensor": (5, "Tensor"),
        "graph": (6, "Graph"),
        "tensors": (10, "Tensor"),
        "graphs": (11, "Graph"),
        "sparse_tensor": (22, "SparseTensor"),
        "sparse_tensors": (23, "SparseTensor"),
    },
    "SparseTensor": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {"external_data": (13, "Entry"), "locations": (14, _NUMBER)},
    "Entry": {"keys": (1, _TEXT), "values": (2, _TEXT)},
}


def check_graph(file: str, content: bytes, listed: Collection[str]) -> tuple[str, ...]:
    """Check the content of the graph `file` of a model folder.

    `listed` are the files that the manifest lists: only these may hold its tensors. Return those
    that do. Raises ManifestError that names the file and the violation.
    """
    if not file.endswith(_SUFFIX):
        raise ManifestError(f"{file} is not a graph file, expected the suffix {_SUFFIX}")
    try:
        model = _model_class().FromString(content)
    except (DecodeError, MemoryError) as error:
        raise ManifestError(f"{file} cannot be loaded: it is not an ONNX model") from error
    external: set[str] = set()
    for kind, message in _messages(model):
        if kind == "Node":
            _check_operator(file, message)
        elif kind == "Tensor" and (message.external_data or _EXTERNAL in message.locations):
            external |= _check_location(file, message.external_data, listed)
    if any(_SESSION_OPTIONS in entry.keys for entry in model.metadata):
        raise ManifestError(
            f"{file} sets options of ONNX Runtime in its metadata {_SESSION_OPTIONS.decode()}; "
            "only the server may set them"
        )
    return tuple(sorted(external))


def _check_operator(file: str, node: Any) -> None:
    for domain in node.domains:
        if domain not in _DOMAINS:
            raise ManifestError(
                f"{file} has a node of the operator {_brief(node.operators)} of the domain "
                f"{_brief([domain])}; only operators of ONNX itself are allowed"
            )


def _check_location(file: str, entries: Any, listed: Collection[str]) -> set[str]:
    allowed = {name.encode(): name for name in listed}
    locations = [value for entry in entries if b"location" in entry.keys for value in entry.values]
    for location in locations or [b""]:
        if location not in allowed:
            raise ManifestError(
                f"{file} has a tensor outside of it, in {_brief([location])}, which is not listed "
                "in files"
            )
    return {allowed[location] for location in locations}


def _brief(texts: Sequence[bytes]) -> str:
    return repr(b" ".join(texts)[:80].decode(errors="replace"))


def _messages(message: Any) -> Iterator[tuple[str, Any]]:
    """Iterate over all messages of the types in `_FORMAT`, with their names."""
    yield message.DESCRIPTOR.name, message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value:
                yield from _messages(child)


@functools.cache
def _model_class() -> Any:
    """Return a message class with the fields of ONNX's ModelProto that are in `_FORMAT`.

    The server does not need the `onnx` package: few fields are relevant, and the parser skips the
    others. All fields are declared as repeated and texts as bytes, so that neither a duplicate
    field nor invalid UTF-8 hides a value.
    """
    package = "latentserve.onnx"
    file = descriptor_pb2.FileDescriptorProto(name="latentserve/onnx.proto", package=package)
    for name, fields in _FORMAT.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
            if kind == _TEXT:
                added.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
            elif kind == _NUMBER:
                added.type = descriptor_pb2.FieldDescriptorProto.TYPE_INT32
            else:
                added.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Model"))
