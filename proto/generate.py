"""Writes the Python stubs of every .proto, or checks that they are current.

python proto/generate.py            # write latentserve/v1/*_pb2*.py and .pyi
python proto/generate.py --check    # exit 1 and name the files that differ
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("latentserve/v1")
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")
# The output depends on the release, so the check is only meaningful with one.
TOOLS_VERSION = "1.85.1"


def generate(output: Path) -> None:
    """Write the stubs of all .proto files below `output`.

    Raises RuntimeError where grpcio-tools has another version or protoc fails.
    """
    if (installed := version("grpcio-tools")) != TOOLS_VERSION:
        raise RuntimeError(
            f"grpcio-tools {installed} is installed, but the stubs are generated with "
            f"{TOOLS_VERSION}. Install it: pip install grpcio-tools=={TOOLS_VERSION}"
        )
    well_known = resources.files("grpc_tools") / "_proto"
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).glob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={ROOT}",
        f"--proto_path={well_known}",
        f"--python_out={output}",
        f"--pyi_out={output}",
        f"--grpc_python_out={output}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed; its message is above")


def stubs(folder: Path) -> dict[str, bytes]:
    """Return name -> content of the stubs below `folder`."""
    return {
        path.name: path.read_bytes()
        for pattern in GENERATED
        for path in (folder / PACKAGE).glob(pattern)
    }


def differing() -> list[str]:
    """Return the names of the committed stubs that are missing, stale or too many."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh, committed = stubs(Path(folder)), stubs(ROOT)
    return sorted(
        name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name)
    )


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing, only compare")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    stale = differing()
    if stale:
        print(f"stale stubs: {', '.join(stale)}; run `make proto`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
