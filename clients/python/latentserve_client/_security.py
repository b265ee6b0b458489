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
    """Return the metadata with the bearer token, empty without a token.

    Raises UsageError for a token that is empty or not ASCII, or that would be sent without TLS,
    OSError for an unreadable file.
    """
    if args.token_file:
        try:
            text = args.token_file.read_text("utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"--token-file {args.token_file} is not a text file") from None
        token = _checked(text, f"--token-file {args.token_file}")
    elif (variable := os.environ.get("LATENTSERVE_TOKEN")) is not None:
        token = _checked(variable, "LATENTSERVE_TOKEN")
    else:
        return []
    if not (args.allow_plaintext_token or args.tls or args.tls_ca or args.tls_cert):
        raise UsageError(
            "a token on a plaintext connection can be intercepted: use --tls or --tls-ca, or "
            "--allow-plaintext-token if something else protects the connection"
        )
    return [("authorization", f"Bearer {token}")]


def _checked(text: str, source: str) -> str:
    """Return the token without whitespace around it. Raises UsageError, without the token."""
    token = text.strip()
    if not token:
        raise UsageError(f"{source} is empty: write a token into it, or unset it")
    if token.startswith("\ufeff"):
        raise UsageError(f"{source} begins with a byte order mark (BOM): remove it")
    if not (token.isascii() and token.isprintable()):
        raise UsageError(f"{source} has characters other than printable ASCII")
    return token
