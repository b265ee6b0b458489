"""Loads a server of its own: `python -m latentserve_client.load --exports exports [options]`.

It starts a server on the model folder, waits until it serves, runs `latentserve load` with the
given options of that and the server's own metrics, and stops it.
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
    """Run it and return the exit code of `latentserve load`, 1 where the server failed."""
    parser = argparse.ArgumentParser(
        description="Start a server on a model folder and load it; other options are those of "
        "`latentserve load`."
    )
    parser.add_argument("--exports", type=Path, default=Path("exports"), metavar="DIR")
    parser.add_argument("--model", default="mnist-vae", metavar="NAME")
    parser.add_argument("--mix", default=_DEFAULT_MIX)
    args, others = parser.parse_known_args(argv)
    address, metrics = free_address(), free_address()
    command = [*server_command(args.exports, address), "--metrics-listen", metrics]
    print(f"starting a server on {args.exports} for this load", file=sys.stderr)
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
