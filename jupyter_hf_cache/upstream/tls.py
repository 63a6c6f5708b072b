"""Trust: which certificates an upstream is believed by, and which one is shown to it.

Responsible for: TLS contexts of a remote, from its fields or from the environment.
Not responsible for: opening connections (`client`).
"""

from __future__ import annotations

import logging
import re
import secrets
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from jupyter_hf_cache.errors import UpstreamUnreachable
from jupyter_hf_cache.storage.records import Remote

BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Environment variables that name a file or folder of trusted certificates, first match wins."""

logger = logging.getLogger(__name__)

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def create_context(
    remote: Remote, environ: Mapping[str, str], *, own: bool, with_client_cert: bool
) -> ssl.SSLContext:
    """The context for connections that `remote` leads to.

    Args:
        own: the connection goes to the remote's own origin, for which `ca_cert` is the only trust;
            a host it redirects to may be certified by the default authorities as well.
        with_client_cert: show the remote's client certificate.

    Raises:
        UpstreamUnreachable: a certificate or key cannot be read.
    """
    context = _trusting(remote, environ, own=own)
    # Python 3.13 asks for extensions that the authorities of many companies leave out; what they
    # certify has to be readable on every Python alike.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not remote.tls_validation:
        logger.warning("The certificates of remote %r are not checked.", remote.name)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if with_client_cert and remote.client_cert:
        _load_client_cert(context, remote.client_cert, remote.client_key)
    return context


def _trusting(remote: Remote, environ: Mapping[str, str], *, own: bool) -> ssl.SSLContext:
    if not remote.ca_cert:
        return _trusting_bundle(environ)
    try:
        if own:
            return ssl.create_default_context(cadata=remote.ca_cert)
        context = _trusting_bundle(environ)
        context.load_verify_locations(cadata=remote.ca_cert)
    except (ssl.SSLError, ValueError):
        raise UpstreamUnreachable(
            f"The ca_cert of remote {remote.name!r} is not a PEM certificate.",
            advice="Set it to the text of the issuer's certificate.",
        ) from None
    return context


def _trusting_bundle(environ: Mapping[str, str]) -> ssl.SSLContext:
    variable = next((name for name in BUNDLE_VARIABLES if environ.get(name)), None)
    if variable is None:
        return ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)
    bundle = Path(environ[variable])
    try:
        if bundle.is_dir():
            return ssl.create_default_context(capath=str(bundle))
        return ssl.create_default_context(cafile=str(bundle))
    except (OSError, ValueError):  # SSLError is an OSError
        raise UpstreamUnreachable(
            f"The certificates that {variable} names cannot be read.",
            advice=f"Correct {variable} in the server's environment.",
        ) from None


def _load_client_cert(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    """Load a certificate and its key from text.

    `ssl` reads keys from files only. The file is encrypted with a password that exists for this
    call, so that the key is never on disk in clear, not even for a moment.
    """
    password = secrets.token_hex(32).encode()
    try:
        locked = _encrypt_key(key or cert, password)
        chain = "\n".join(_CERTIFICATE.findall(cert))
        with tempfile.TemporaryDirectory(prefix="hf-cache-") as folder:
            file = Path(folder) / "client.pem"
            file.write_bytes(chain.encode() + b"\n" + locked)
            context.load_cert_chain(str(file), password=password)
    except (OSError, ValueError, TypeError):
        raise UpstreamUnreachable(
            "The remote's client_cert and client_key cannot be used together.",
            advice="Both are PEM text; the key must be the certificate's, without a passphrase.",
        ) from None


def _encrypt_key(pem: str, password: bytes) -> bytes:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
