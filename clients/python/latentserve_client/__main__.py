"""Entry point of `latentserve` and of `python -m latentserve_client`."""

import sys

from latentserve_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
