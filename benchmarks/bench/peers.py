"""Other model servers, each in a separate virtual environment; see benchmarks/peers/README.md."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import servers
from bench.cells import CONV, GENERATOR, KSERVE, MLP, MLSERVER, MLSERVER_PLAIN, TRITON
from bench.models import Model
from bench.servers import Server

FOLDER = Path(__file__).parents[1] / "peers"
CALLED = {MLP: "Reconstruct", CONV: "Reconstruct", GENERATOR: "Decode"}
"""The call of each model whose graph the peers serve."""

SETUPS = {
    TRITON: "tritonserver of the wheel nvidia-pytriton, Python backend; one instance of each "
    "model, `dynamic_batching` without a delay (the first recommendation of its documentation), "
    "batches of up to 256 rows, the requests of a batch concatenated into one run; HTTP and "
    "metrics off.",
    MLSERVER: "A custom runtime; `parallel_workers` 0, so that inference runs in the process of "
    "the server; adaptive batching of up to 32 requests within 1 ms; metrics and debug off, log "
    "level WARNING.",
    MLSERVER_PLAIN: "The same without adaptive batching, which costs more than it saves for large "
    "or few requests: every request is a separate run.",
    KSERVE: "A custom asynchronous model with raw tensors in requests and replies; one worker; "
    "latency log off, log level WARNING. It has no batcher in the process: every request is a "
    "separate run.",
}
VENVS = {MLSERVER_PLAIN: MLSERVER}
"""Name of the virtual environment and script of a peer, if it differs from the peer's name."""
PACKAGES = {TRITON: "nvidia-pytriton", MLSERVER: "mlserver", KSERVE: "kserve"}


def installed(folder: Path | None) -> dict[str, Path]:
    """Return the Python interpreter of each peer with a virtual environment in the folder."""
    if folder is None:
        return {}
    pythons = {name: (folder / _venv(name) / "bin" / "python").absolute() for name in SETUPS}
    return {name: python for name, python in pythons.items() if python.exists()}


def versions(python: Path, name: str) -> str:
    """Return the versions of a peer and of its ONNX Runtime."""
    code = "import sys; from importlib.metadata import version\n"
    code += "print(', '.join(f'{name} {version(name)}' for name in sys.argv[1:]))"
    packages = [PACKAGES[_venv(name)], "onnxruntime", "grpcio"]
    ran = subprocess.run(
        [str(python), "-c", code, *packages], capture_output=True, text=True, timeout=60
    )
    return ran.stdout.strip()


def start(name: str, python: Path, models: dict[str, Model], scratch: Path) -> Server:
    """Start a peer with the models in `CALLED`."""
    folder = scratch / f"peer-{name.replace(' ', '-')}"
    folder.mkdir()
    listed = folder / "models.json"
    listed.write_text(json.dumps([_described(models[each]) for each in CALLED]), "utf-8")
    address = servers.free_address()
    script = str(FOLDER / f"serve_{_venv(name)}.py")
    command = [str(python), script, str(listed), address.rpartition(":")[2], str(folder)]
    command += ["unbatched"] * (name == MLSERVER_PLAIN)
    log = folder / "server.log"
    return Server(name, command, address, log, SETUPS[name], peer=True)


def absent(pythons: Iterable[str], folder: Path | None) -> list[str]:
    """Return the peers that are not measured, with the reason."""
    if folder is None:
        return ["peers: not requested (--peers)"]
    return [
        f"{name}: {folder / _venv(name)} does not exist" for name in SETUPS if name not in pythons
    ]


def _venv(name: str) -> str:
    return VENVS.get(name, name)


def _described(model: Model) -> dict[str, Any]:
    rpc = CALLED[model.name]
    input_name, output_name = model.tensors(rpc)
    return {
        "name": model.name,
        "graph": str(model.graph(rpc).absolute()),
        "input": input_name,
        "output": output_name,
        "input_shape": list(model.row_shape(rpc)),
        "output_shape": list(model.expected(rpc, 1).shape[1:]),
    }
