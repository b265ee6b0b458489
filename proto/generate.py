"""Writes the Python stubs of every .proto, or checks that they are current.

python proto/generate.py            # write *_pb2*.py and .pyi beside each .proto
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

REPOSITORY = Path(__file__).resolve().parents[1]
# Root of the imports -> folder of the .proto files: the wire contract, and what the load tester
# needs of the Open Inference Protocol.
PACKAGES = {
    Path("proto"): Path("latentserve/v1"),
    Path("clients/python"): Path("latentserve_client/load/open_inference"),
}
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")
# The output depends on the release, so the check is only meaningful with one.
TOOLS_VERSION = "1.85.1"


def generate(output: Path) -> None:
    """Write the stubs of all .proto files below `output`, laid out as the repository is.

    Raises RuntimeError where grpcio-tools has another version or protoc fails.
    """
    if (installed := version("grpcio-tools")) != TOOLS_VERSION:
        raise RuntimeError(
            f"grpcio-tools {installed} is installed, but the stubs are generated with "
            f"{TOOLS_VERSION}. Install it: pip install grpcio-tools=={TOOLS_VERSION}"
        )
    for root, package in PACKAGES.items():
        _generate(REPOSITORY / root, package, output / root)


def _generate(root: Path, package: Path, output: Path) -> None:
    well_known = resources.files("grpc_tools") / "_proto"
    sources = sorted(path.relative_to(root) for path in (root / package).glob("*.proto"))
    output.mkdir(parents=True, exist_ok=True)
    arguments = ["protoc", f"--proto_path={root}", f"--proto_path={well_known}"]
    arguments += [f"--python_out={output}", f"--pyi_out={output}"]
    # Messages alone need no stubs of services.
    if any("\nservice " in (root / source).read_text("utf-8") for source in sources):
        arguments.append(f"--grpc_python_out={output}")
    if protoc.main([*arguments, *map(str, sources)]) != 0:
        raise RuntimeError("protoc failed; its message is above")


def stubs(repository: Path) -> dict[str, bytes]:
    """Return path -> content of the stubs in a folder laid out as the repository is."""
    return {
        str(path.relative_to(repository)): path.read_bytes()
        for root, package in PACKAGES.items()
        for pattern in GENERATED
        for path in (repository / root / package).glob(pattern)
    }


def differing() -> list[str]:
    """Return the committed stubs that are missing, stale or too many."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh, committed = stubs(Path(folder)), stubs(REPOSITORY)
    return sorted(
        name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name)
    )


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing, only compare")
    if not parser.parse_args().check:
        generate(REPOSITORY)
        return 0
    stale = differing()
    if stale:
        print(f"stale stubs: {', '.join(stale)}; run `make proto`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
