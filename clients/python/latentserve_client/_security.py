"""TLS credentials and bearer token from the command-line options."""

from __future__ import annotations

import argparse
import os

import grpc

from latentserve_client._command_line import UsageError


def credentials(args: argparse.Namespace) -> grpc.ChannelCredentials | None:
    """Return the TLS credentials, None for plain text.

    Raises UsageError for incomplete options, OSError for unreadable files.
    """
    if bool(args.tls_cert) != bool(args.tls_key):
        raise UsageError("--tls-cert and --tls-key must be given together")
    if not (args.tls or args.tls_ca or args.tls_cert):
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=args.tls_ca.read_bytes() if args.tls_ca else None,
        private_key=args.tls_key.read_bytes() if args.tls_key else None,
        certificate_chain=args.tls_cert.read_bytes() if args.tls_cert else None,
    )


def metadata(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the metadata with the bearer token, empty without a token."""
    if args.token_file:
        token = args.token_file.read_text("utf-8").strip()
    else:
        token = os.environ.get("LATENTSERVE_TOKEN", "").strip()
    return [("authorization", f"Bearer {token}")] if token else []
