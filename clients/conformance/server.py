"""Starts the servers of the conformance cases: `server.py [--broken NAME] [--out servers.json]`.

It prints one line, the JSON of their addresses, when all are in their states. README.md says what
they are.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from conformance_server.command import main

if __name__ == "__main__":
    sys.exit(main())
