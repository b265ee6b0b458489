"""Command that starts the servers of the cases: `server.py [--broken NAME] [--out FILE]`.

It prints one line, the JSON of their addresses, when all servers are in their states. README.md
describes them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from conformance_server.command import main

if __name__ == "__main__":
    sys.exit(main())
