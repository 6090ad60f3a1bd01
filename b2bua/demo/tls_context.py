"""TLS contexts of the demonstration endpoint: Python's `ssl`, version 1.3 and nothing else, certificates both ways."""

from __future__ import annotations

import ssl
from pathlib import Path


def client_context(*, certificate: Path, private_key: Path, authority: Path) -> ssl.SSLContext:
    """A context that shows a certificate, verifies the server's against one authority and checks its name."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, certificate, private_key, authority)
    context.check_hostname = True
    return context


def server_context(*, certificate: Path, private_key: Path, authority: Path) -> ssl.SSLContext:
    """A context that demands a certificate of one authority from the client, and gives no resumption tickets.

    Without tickets every connection shows its certificate.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, private_key, authority)
    context.num_tickets = 0
    return context


def _context(protocol: int, certificate: Path, private_key: Path, authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, private_key)
    context.load_verify_locations(authority)
    return context
