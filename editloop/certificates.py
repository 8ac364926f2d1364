"""Trusted certificates of HTTPS, read once: httpx reads them for each client, which takes longer than a request."""

import ssl
from functools import cache

import httpx


@cache
def shared_certificates() -> ssl.SSLContext:
    """Return what httpx trusts, SSL_CERT_FILE and SSL_CERT_DIR included, for `verify` of its clients."""
    return httpx.create_ssl_context()
