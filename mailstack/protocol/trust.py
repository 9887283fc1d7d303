"""TLS contexts for the lab's servers: its CA alone is trusted."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path


def tls_context(ca_file: Path | None = None, ca: str | None = None) -> ssl.SSLContext:
    """A client that trusts the lab's CA alone, and wants TLS 1.2 or newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=str(ca_file) if ca_file else None, cadata=ca)
    return context


@functools.lru_cache(maxsize=8)
def kept_context(ca: str) -> ssl.SSLContext:
    """The same, made once for each CA: who gets it leaves it as it is."""
    return tls_context(ca=ca)
