"""Everything about a GPU in one command of under eight minutes: every gpu test, every figure.

    python benchmarks/gpu.py --exports exports --model mnist-vae --out gpu-report

Writes gpu-report/gpu.md and gpu.json:

* what the tests marked `gpu` say;
* the graph alone, at 1 to 4,096 rows: on data that lies on the device already (bare), with a plain
  run, with IO binding, CUDA graphs, TF32, NHWC, and in float16;
* the server: rows per second with IO binding, CUDA graphs, TF32 and NHWC, with 1 to 8 workers on
  one GPU, and what it adds to the bare run at 256 rows;
* from the start of the process to the first answer, with each convolution search.

Without a GPU it runs on the CPU, at small sizes, and the report says what was not measured. It
also says what the time did not suffice for.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import gpu_load
import gpu_report
import latentserve_server
from latentserve_server.engine import device
from latentserve_server.engine.cuda_options import CONV_SEARCHES, CudaOptions
from latentserve_server.engine.io_binding import IoBindingEngine
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.engine.session import open_session
from latentserve_server.errors import LatentserveError
from latentserve_server.manifest.reader import Manifest, read_manifest

OPERATION = "reconstruct"
SATURATED_ROWS = 256
PLAIN = CudaOptions(io_binding=False)
ENGINES = {
    "plain run": PLAIN,
    "IO binding": CudaOptions(),
    "CUDA graphs": CudaOptions(cuda_graphs=True),
    "IO binding, TF32": CudaOptions(tf32=True),
    "IO binding, NHWC": CudaOptions(prefer_nhwc=True),
}
HALF = {
    "float16, IO binding": CudaOptions(),
    "float16, IO binding, NHWC": CudaOptions(prefer_nhwc=True),
    "float16, CUDA graphs": CudaOptions(cuda_graphs=True),
}
SERVERS = {
    "plain run": ("--io-binding", "no"),
    "IO binding": (),
    "CUDA graphs": ("--cuda-graphs", "yes"),
    "IO binding, TF32": ("--tf32", "yes"),
    "IO binding, NHWC": ("--prefer-nhwc", "yes"),
}
ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass
class Bench:
    """What is measured, how long for, and what came of it."""

    folder: Path
    on_gpu: bool
    rows: list[int]
    workers: list[int]
    seconds: float
    end: float
    result: dict[str, Any] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)

    @property
    def manifest(self) -> Manifest:
        """Of the model."""
        return read_manifest(self.folder)

    def device(self, chosen: CudaOptions) -> device.Device:
        """Return the GPU with these choices, or the CPU with buffers of the same sizes."""
        on = device.cuda_device(chosen, max(self.rows))
        if self.on_gpu:
            return on
        return dataclasses.replace(on, name="cpu", provider=device.CPU_PROVIDER, options={})

    def attempt(self, what: str, reserve_s: float, measure: Callable[[], Any]) -> Any:
        """Measure where the time suffices; say what is missing where it does not, or fails."""
        if time.monotonic() + reserve_s > self.end:
            self.missing.append(f"{what}: out of time")
            return None
        print(what, flush=True)
        try:
            return measure()
        except (LatentserveError, *gpu_load.FAILURES) as error:
            self.missing.append(f"{what}: {str(error).splitlines()[0][:200]}")
            return None


def main() -> int:
    """Measure, and write the report; the exit status is that of the tests."""
    parser = argparse.ArgumentParser(description="Every test and every figure about a GPU.")
    parser.add_argument("--exports", type=Path, default=Path("exports"))
    parser.add_argument("--model", default="mnist-vae", help="with reconstruct")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"))
    parser.add_argument("--minutes", type=float, default=7.5, help="at most, for everything")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each figure")
    parser.add_argument("--rows", type=_numbers, help="(default: 1,4,16,64,256,1024,4096)")
    parser.add_argument("--workers", type=_numbers, help="(default: 1,2,4,8; CPU: 1,2)")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out")
    given = parser.parse_args()
    problem = device.cuda_problem() if given.device != "cpu" else "--device cpu was asked for"
    if given.device == "cuda" and problem:
        raise SystemExit(f"--device cuda cannot be kept: {problem}")
    on_gpu = problem is None
    if on_gpu:
        onnxruntime.preload_dlls()
    versions = sorted((given.exports / given.model).glob("[1-9]*"), key=lambda each: int(each.name))
    if not versions:
        raise SystemExit(f"{given.exports} has no model {given.model}")
    started = time.monotonic()
    bench = Bench(
        versions[-1],
        on_gpu,
        given.rows or ([1, 4, 16, 64, 256, 1024, 4096] if on_gpu else [1, 16, 64]),
        given.workers or ([1, 2, 4, 8] if on_gpu else [1, 2]),
        given.seconds,
        started + 60 * given.minutes,
    )
    if problem:
        bench.missing.append(f"everything on a GPU: {problem}")
    bench.result["machine"] = machine(bench)
    status = 0 if given.no_tests else run_tests(bench)
    engines(bench)
    with tempfile.TemporaryDirectory() as folder:
        servers(bench, Path(folder))
    bench.result |= {"missing": bench.missing, "seconds": round(time.monotonic() - started, 1)}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "gpu.json").write_text(json.dumps(bench.result, indent=2) + "\n", "utf-8")
    report = gpu_report.markdown(bench.result)
    (given.out / "gpu.md").write_text(report, "utf-8")
    print(f"\n{report}")
    return status


def machine(bench: Bench) -> dict[str, Any]:
    """Say what was measured, and on what."""
    gpu = ""
    if bench.on_gpu:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            gpu = "an NVIDIA GPU (nvidia-smi does not answer)"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "gpu": gpu,
        "provider": device.CUDA_PROVIDER if bench.on_gpu else device.CPU_PROVIDER,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "latentserve": latentserve_server.__version__,
        "model": f"{bench.folder.parent.name} version {bench.folder.name}",
        "operation": OPERATION,
    }


def run_tests(bench: Bench) -> int:
    """Run every test that is marked gpu; return pytest's exit status."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests" / "gpu")]
    print("tests marked gpu", flush=True)
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=bench.end - time.monotonic()
        )
    except subprocess.TimeoutExpired:
        bench.missing.append("tests marked gpu: out of time")
        return 1
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    bench.result["tests"] = {
        "outcome": lines[-1] if lines else done.stderr[-300:],
        "failed": failed,
    }
    if not bench.on_gpu:
        bench.missing.append("tests marked gpu: skipped")
    return done.returncode


# --- the graph alone ----------------------------------------------------------------------------


def engines(bench: Bench) -> None:
    """Measure one run of a batch in this process, in every way, at every number of rows."""
    table: dict[str, dict[int, float]] = {}
    bench.result["engine_ms"] = table
    ways = (
        ENGINES if bench.on_gpu else {name: ENGINES[name] for name in ("plain run", "IO binding")}
    )
    reserve_s = len(bench.rows) * 2 * bench.seconds + 10.0
    bare = bench.attempt("bare run", reserve_s, lambda: bare_ms(bench))
    if bare is not None:
        table["bare run"] = bare
    for name, chosen in ways.items():
        found = bench.attempt(name, reserve_s, lambda c=chosen: engine_ms(bench, bench.folder, c))
        if found is not None:
            table[name] = found
    if not bench.on_gpu:
        left = [*(name for name in ENGINES if name not in ways), *HALF]
        bench.missing.append(f"the graph alone: {'; '.join(left)} (a GPU is needed)")
        return
    with tempfile.TemporaryDirectory() as folder:
        half = bench.attempt(
            "float16", reserve_s, lambda: gpu_load.in_float16(bench.folder, Path(folder))
        )
        for name, chosen in HALF.items() if half else ():
            found = bench.attempt(name, reserve_s, lambda c=chosen: engine_ms(bench, half, c))
            if found is not None:
                table[name] = found


def engine_ms(bench: Bench, folder: Path, chosen: CudaOptions) -> dict[int, float]:
    """Return the median milliseconds of one batch by its rows, copies included."""
    on = bench.device(chosen)
    kind = IoBindingEngine if chosen.io_binding else OnnxEngine
    engine = kind(read_manifest(folder), on, threads=1)
    shape = engine_shape(bench)
    found = {}
    for rows in bench.rows:
        x = np.random.default_rng(rows).random((rows, *shape), dtype=np.float32)
        found[rows] = gpu_load.median_ms(lambda x=x: engine.run(OPERATION, [x]), bench.seconds)
    return found


def bare_ms(bench: Bench) -> dict[int, float]:
    """Return the median milliseconds of the graph on data that lies on the device already."""
    manifest, on = bench.manifest, bench.device(CudaOptions())
    spec, found = manifest.operations[OPERATION], {}
    session = open_session(manifest, spec, on, 1)
    for rows in bench.rows:
        shape = (rows, *engine_shape(bench))
        x = np.random.default_rng(rows).random(shape, dtype=np.float32)
        given = onnxruntime.OrtValue.ortvalue_from_numpy(x, on.name, on.device_id)
        taken = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            shape, np.float32, on.name, on.device_id
        )
        binding = session.io_binding()
        binding.bind_ortvalue_input(spec.inputs[0], given)
        binding.bind_ortvalue_output(spec.outputs[0], taken)
        found[rows] = gpu_load.median_ms(
            lambda b=binding: session.run_with_iobinding(b), bench.seconds
        )
    return found


def engine_shape(bench: Bench) -> tuple[int, ...]:
    """Return the shape of one input row."""
    return bench.manifest.input_shape(OPERATION)


# --- the server ---------------------------------------------------------------------------------


def servers(bench: Bench, scratch: Path) -> None:
    """Measure rows per second of real servers of that model, and the time to the first answer."""
    exports = scratch / "exports"
    shutil.copytree(bench.folder, exports / bench.folder.parent.name / bench.folder.name)
    flags = ["--device", "cuda" if bench.on_gpu else "cpu"]
    rows = SATURATED_ROWS if bench.on_gpu else max(bench.rows)
    model, shape = bench.folder.parent.name, engine_shape(bench)
    sizes = ["--max-batch-rows", str(rows), "--transport", "cq", "--exports", str(exports)]

    def rate(*more: str, workers: int = 1) -> float:
        every = (*flags, *sizes, *more, "--workers", str(workers))
        with gpu_load.serving(every, scratch / "server.log") as address:
            return gpu_load.rows_per_s(address, model, shape, rows, bench.seconds, workers)

    reserve_s = 30.0 + 2 * bench.seconds
    by_way: dict[str, float | None] = {}
    for name, more in SERVERS.items() if bench.on_gpu else [("plain run", ())]:
        by_way[name] = bench.attempt(f"server, {name}", reserve_s, lambda m=more: rate(*m))
    by_workers = {
        count: bench.attempt(f"{count} workers", reserve_s, lambda n=count: rate(workers=n))
        for count in bench.workers
    }
    first = {}
    for search in CONV_SEARCHES if bench.on_gpu else ("(CPU)",):
        more = ("--conv-search", search) if bench.on_gpu else ()
        first[search] = bench.attempt(
            f"first answer, {search}",
            reserve_s,
            lambda m=more: gpu_load.first_reply_s(
                (*flags, *sizes, *m), scratch / "server.log", model, shape
            ),
        )
    bench.result["server"] = {
        "rows_per_request": rows,
        "rows_per_s": by_way,
        "rows_per_s_by_workers": by_workers,
        "first_answer_s": first,
    }
    if not bench.on_gpu:
        bench.missing.append("the server with every choice for CUDA (a GPU is needed)")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
