"""Command `make conformance`: runs the clients of all languages; see README.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from conformance_harness.command import main

if __name__ == "__main__":
    sys.exit(main())
