"""Command line: `latentserve COMMAND ...`, or `python -m latentserve_client`.

Comes in: the arguments. Goes out: text or JSON on stdout, errors on stderr, and the exit code: 0
success, 1 failure, 2 wrong usage, 130 interrupted. Knows the client, the pictures and `load`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from latentserve_client import LatentserveError
from latentserve_client._command_line import CommandError, UsageError
from latentserve_client.cli._arguments import make_parser
from latentserve_client.cli._commands import COMMANDS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        report = COMMANDS[args.command](args)
        print(json.dumps(report.data) if args.json else report.text, flush=True)
        return report.exit_code
    except UsageError as error:
        print(f"latentserve {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader, for example `head`, has closed the pipe. Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"latentserve: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except (LatentserveError, CommandError) as error:
        print(f"latentserve: {_with_address(error, args.server)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _with_address(error: Exception, server: str) -> str:
    """Return the message, with the address if the error may result from a wrong address."""
    if isinstance(error, LatentserveError) and error.code in ("UNAVAILABLE", "UNIMPLEMENTED"):
        return f"{server}: {error}"
    return str(error)
