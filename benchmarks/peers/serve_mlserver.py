"""Program that configures MLServer for the benchmark's models and executes it.

    VENV/bin/python serve_mlserver.py MODELS.json PORT SCRATCH [unbatched]

MODELS.json has the format of serve_triton.py; `unbatched` disables adaptive batching.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path

SETTINGS = {
    "host": "127.0.0.1",
    "debug": False,
    # Inference in the process of the server: a pool of workers costs a copy to another process.
    "parallel_workers": 0,
    "metrics_endpoint": None,
    "use_structured_logging": False,
    "grpc_max_message_length": 64 * 2**20,
}
BATCHING = {"max_batch_size": 32, "max_batch_time": 0.001}
# Otherwise it logs a line per call.
LOGGING = """[loggers]
keys=root,mlserver
[handlers]
keys=error
[formatters]
keys=plain
[logger_root]
level=WARNING
handlers=error
[logger_mlserver]
level=WARNING
handlers=error
qualname=mlserver
propagate=0
[handler_error]
class=StreamHandler
formatter=plain
args=(sys.stderr,)
[formatter_plain]
format=%(message)s
"""


def main() -> None:
    """Write the settings and replace this process by mlserver."""
    models, port, scratch = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], sys.argv[3]
    root = Path(scratch)
    shutil.copy(Path(__file__).with_name("mlserver_runtime.py"), root)
    (root / "logging.ini").write_text(LOGGING, encoding="utf-8")
    settings = {
        **SETTINGS,
        "http_port": free_port(),
        "grpc_port": int(port),
        "logging_settings": str(root / "logging.ini"),
    }
    (root / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    for model in models:
        folder = root / model["name"]
        folder.mkdir()
        model_settings = {
            "name": model["name"],
            "implementation": "mlserver_runtime.OnnxRuntime",
            "inputs": [_tensor(model["input"], model["input_shape"])],
            "outputs": [_tensor(model["output"], model["output_shape"])],
            "parameters": {"uri": model["graph"]},
            **({} if "unbatched" in sys.argv else BATCHING),
        }
        (folder / "model-settings.json").write_text(json.dumps(model_settings), encoding="utf-8")
    os.chdir(root)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execve(program, [program, "start", str(root)], environment)  # noqa: S606 - our own program


def free_port() -> int:
    """Return a free port for the HTTP server, which cannot be disabled."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _tensor(name: str, shape: list[int]) -> dict[str, object]:
    return {"name": name, "datatype": "FP32", "shape": [-1, *shape]}


if __name__ == "__main__":
    main()
