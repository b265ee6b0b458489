"""The command line of the fixture: start the servers, print where they are, break them."""

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
    """Run the servers until a signal, or the end of the input with --stdin."""
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
        commands = asyncio.ensure_future(_follow(servers, breakage, ended))
    await ended.wait()
    if commands is not None:
        commands.cancel()
    await servers.stop()


async def _follow(servers: Servers, breakage: Breakage, ended: asyncio.Event) -> None:
    """Do what the lines of the input say, and end with it."""
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
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="server.py", description=__doc__)
    parser.add_argument("--exports", type=Path, default=_EXPORTS)
    parser.add_argument("--transport", choices=("aio", "cq"), default="aio")
    parser.add_argument("--out", type=Path, help="write the addresses there too")
    parser.add_argument("--stdin", action="store_true", help="take commands, end with the input")
    parser.add_argument("--broken", choices=("none", *GROUPS), default="none")
    parser.add_argument("--list-broken", action="store_true", help="print the ways to break it")
    arguments = parser.parse_args()
    if arguments.list_broken:
        print(json.dumps(GROUPS))
        return 0
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    # What fails on purpose would fill the terminal.
    logging.getLogger("latentserve_server").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(serve(arguments, Path(folder)))
    return 0
