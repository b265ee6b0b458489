"""Conformance runner of the Python client: `runner.py --cases DIR --servers FILE`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from conformance_runner.command import main

if __name__ == "__main__":
    sys.exit(main())
