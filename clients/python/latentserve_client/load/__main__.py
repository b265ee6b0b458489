"""Entry point `python -m latentserve_client.load`: load on a temporary server.

Starts a server on the model folder of `--exports`, waits until it serves, runs `latentserve load`
with the remaining options and the metrics of the server, and stops the server.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from latentserve_client._client import Client
from latentserve_client._server_process import (
    ServerFailed,
    ServerProcess,
    free_address,
    server_command,
)
from latentserve_client.cli import main as cli

_DEFAULT_MIX = "reconstruct=4,encode=4:rows=1|16,sample=1:count=16,stream=1:count=64"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the load and return the exit code of `latentserve load`, or 1 if the server fails."""
    parser = argparse.ArgumentParser(
        description="Start a server on a model folder and run `latentserve load` on it, with all "
        "other options."
    )
    parser.add_argument("--exports", type=Path, default=Path("exports"), metavar="DIR")
    parser.add_argument("--model", default="mnist-vae", metavar="NAME")
    parser.add_argument("--mix", default=_DEFAULT_MIX)
    args, others = parser.parse_known_args(argv)
    address, metrics = free_address(), free_address()
    command = [*server_command(args.exports, address), "--metrics-listen", metrics]
    print(f"starting a server on {args.exports}", file=sys.stderr)
    try:
        with ServerProcess(command) as server:
            with Client(address) as client:
                server.wait_until_serving(client)
            options = ["--server", address, "--metrics-url", f"http://{metrics}/metrics"]
            options += ["--model", args.model, "--mix", args.mix]
            return cli(["load", *options, *others])
    except ServerFailed as error:
        print(f"load: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
