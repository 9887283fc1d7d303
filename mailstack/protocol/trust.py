"""TLS contexts that trust only the lab's CA."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path


def tls_context(ca_file: Path | None = None, ca: str | None = None) -> ssl.SSLContext:
    """Return a client context that trusts only the lab's CA and requires TLS 1.2 or newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=str(ca_file) if ca_file else None, cadata=ca)
    return context


@functools.lru_cache(maxsize=8)
def cached_context(ca: str) -> ssl.SSLContext:
    """Return the same context, cached for each CA. The caller must not change it."""
    return tls_context(ca=ca)
