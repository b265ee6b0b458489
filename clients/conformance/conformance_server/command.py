"""Command line of the servers: starts them, prints their addresses, breaks them."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import tempfile
from pathlib import Path

from conformance_server.breakages import GROUPS, Breakage
from conformance_server.servers import Servers

_EXPORTS = Path(__file__).resolve().parents[3] / "exports"


async def serve(arguments: argparse.Namespace, folder: Path) -> None:
    """Run the servers until a signal or, with --stdin, the end of the input."""
    breakage = Breakage(arguments.broken)
    servers = Servers(arguments.exports, folder, arguments.transport, breakage)
    addresses = json.dumps({"servers": await servers.start()})
    if arguments.out:
        arguments.out.write_text(addresses + "\n", "utf-8")
    print(addresses, flush=True)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    commands = None
    if arguments.stdin:
        commands = asyncio.ensure_future(_run_commands(servers, breakage, ended))
    await ended.wait()
    if commands is not None:
        commands.cancel()
    await servers.stop()


async def _run_commands(servers: Servers, breakage: Breakage, ended: asyncio.Event) -> None:
    """Execute the commands of standard input; stop at its end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode():
        command, _, name = line.strip().partition(" ")
        if command != "break" or name not in ("none", *GROUPS):
            print(f"unknown command {line.strip()!r}", flush=True)
            continue
        breakage.name = name
        await servers.apply_breakage()
        print("ok", flush=True)
    ended.set()


def main() -> int:
    """Parse the command line and run the servers."""
    parser = argparse.ArgumentParser(prog="server.py", description=__doc__)
    parser.add_argument("--exports", type=Path, default=_EXPORTS)
    parser.add_argument("--transport", choices=("aio", "cq"), default="aio")
    parser.add_argument("--out", type=Path, help="also write the addresses to this file")
    parser.add_argument(
        "--stdin", action="store_true", help="read commands from standard input; stop at its end"
    )
    parser.add_argument("--broken", choices=("none", *GROUPS), default="none")
    parser.add_argument(
        "--list-broken", action="store_true", help="print the breakages and their groups"
    )
    arguments = parser.parse_args()
    if arguments.list_broken:
        print(json.dumps(GROUPS))
        return 0
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    # Intended failures would fill the terminal.
    logging.getLogger("latentserve_server").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(serve(arguments, Path(folder)))
    return 0
