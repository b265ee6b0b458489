"""Program that configures Triton for the benchmark's models and executes tritonserver.

    VENV/bin/python serve_triton.py MODELS.json PORT SCRATCH

The wheel nvidia-pytriton contains tritonserver, which is started directly, with the Python backend.
MODELS.json is a list of objects with name, graph, input, output, and the shapes of one row.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 256
input [{{ name: "{input}" data_type: TYPE_FP32 dims: {input_shape} }}]
output [{{ name: "{output}" data_type: TYPE_FP32 dims: {output_shape} }}]
dynamic_batching {{ }}
instance_group [{{ kind: KIND_CPU count: 1 }}]
parameters {{ key: "graph" value: {{ string_value: "{graph}" }} }}
"""


def main() -> None:
    """Write the model repository and replace this process by tritonserver."""
    models, port, scratch = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], sys.argv[3]
    repository = Path(scratch) / "repository"
    for model in models:
        version = repository / model["name"] / "1"
        version.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("triton_model.py"), version / "model.py")
        config = CONFIG.format(**model)
        (repository / model["name"] / "config.pbtxt").write_text(config, encoding="utf-8")
    spec = find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise SystemExit("nvidia-pytriton is not installed")
    package = Path(spec.origin).parent
    triton = package / "tritonserver"
    version_name = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / version_name / "triton_python_backend_stub"
    if stub.exists():  # the backend expects the stub of this Python version in its folder
        backends = Path(scratch) / "backends"
        shutil.copytree(triton / "backends", backends)
        shutil.copy(stub, backends / "python" / stub.name)
    else:
        backends = triton / "backends"
    libraries = [sysconfig.get_config_var("LIBDIR"), str(package.parent / "nvidia_pytriton.libs")]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PYTHONPATH": str(package.parent),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    command = [str(triton / "bin" / "tritonserver"), f"--model-repository={repository}"]
    command += [f"--backend-directory={backends}", "--grpc-address=127.0.0.1"]
    command += [f"--grpc-port={port}", "--allow-http=false", "--allow-metrics=false"]
    command += ["--log-info=false"]
    os.execve(command[0], command, environment)  # noqa: S606 - our own program


if __name__ == "__main__":
    main()
