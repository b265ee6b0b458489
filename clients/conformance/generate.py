"""Command that generates the conformance cases, or checks them: `generate.py [--check]`.

Expected values come from ONNX Runtime on the exports and from the generator of docs/sampling.md,
never from the server.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The tests use the same plain-Python generator of docs/sampling.md.
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests")]

from conformance_cases.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
