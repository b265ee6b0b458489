"""Writes the conformance cases, or compares the committed ones: `generate.py [--check]`.

Expected values come from ONNX Runtime on the exports and from the generator that
docs/sampling.md describes, never from the server.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The plain-Python generator of docs/sampling.md is shared with the tests.
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests")]

from conformance_cases.writing import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
