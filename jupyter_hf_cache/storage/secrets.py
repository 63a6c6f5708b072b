"""The one secret key of an installation, and what is made with it.

Responsible for: finding or creating the key, sealing the secrets that are kept on disk, deriving
keys for other purposes (signed capabilities), and naming the identity behind a token without
keeping the token.
Not responsible for: which fields are secret (`config_store`) or what a capability says
(`web.capability`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from jupyter_hf_cache.errors import StorageError

logger = logging.getLogger(__name__)

KEY_FILE = "hf-cache.key"
KEY_VARIABLE = "JUPYTER_HF_CACHE_KEY"

_KEY_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_WRITING_SECONDS = 2.0


class SealedByAnotherKey(StorageError):
    """A secret on disk was sealed by another key, or altered: it has to be entered again."""


class SecretBox:
    """Seals and opens short secrets, and derives keys; safe in any thread.

    Args:
        key: at least 32 bytes, from `load_key`.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < _KEY_BYTES:
            raise ValueError(f"the key needs at least {_KEY_BYTES} bytes")
        self._key = key
        self._fernet = Fernet(base64.urlsafe_b64encode(self.derive("seal")))
        self._identity_key = self.derive("identity")

    def __repr__(self) -> str:
        return "SecretBox(...)"

    def seal(self, text: str) -> str:
        """Encrypt and authenticate `text`; the answer is ASCII and differs each time."""
        return self._fernet.encrypt(text.encode()).decode("ascii")

    def open(self, sealed: str) -> str:
        """Return the text that `seal` was given.

        Raises:
            SealedByAnotherKey: another key sealed it, or it was altered.
        """
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except (InvalidToken, ValueError) as error:
            raise SealedByAnotherKey(
                "A stored secret cannot be read: it was sealed by another key than this cache's.",
                advice=f"Restore the former {KEY_FILE}, or enter the secret again.",
            ) from error

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes that depend on the key and on `purpose`, and reveal neither."""
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(
            self._key
        )

    def identity(self, token: str | None) -> str:
        """Name whose right a request is made with: "anonymous", or a keyed hash of the token in
        hex.

        The same token gives the same name for as long as the key lives; nobody without the key can
        test a guess against it.
        """
        if not token:
            return "anonymous"
        return hmac.new(self._identity_key, token.encode(), hashlib.sha256).hexdigest()[:32]


def load_key(config_dir: Path, environ: Mapping[str, str] | None = None) -> bytes:
    """Return the key: from `JUPYTER_HF_CACHE_KEY`, else from `hf-cache.key`, which is created when
    missing.

    Several processes may start at once: all get the key of the one whose file came first.

    Args:
        config_dir: holds the key file; created (0700) when missing.
        environ: read instead of the process's own environment.

    Raises:
        StorageError: the file is damaged or cannot be read or written, or the variable holds no
            key.
    """
    text = (os.environ if environ is None else environ).get(KEY_VARIABLE, "").strip()
    if text:
        return _decode_variable(text)
    path = config_dir / KEY_FILE
    try:
        if not path.exists():
            _create(path)
        _tighten(path)
        return _read(path)
    except OSError as error:
        raise StorageError(
            f"The key file {path} cannot be used: {error.strerror or error}.",
            advice=f"Make {config_dir} writable for the server's user, or set {KEY_VARIABLE}.",
        ) from error


def _decode_variable(text: str) -> bytes:
    key = _decode(text)
    if key is None:
        raise StorageError(
            f"{KEY_VARIABLE} does not hold a key.",
            advice="Give base64 of 32 random bytes or more: `openssl rand -base64 32`.",
        )
    return key


def _decode(text: str) -> bytes | None:
    plain = text.strip().replace("+", "-").replace("/", "_").rstrip("=")
    try:
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) >= _KEY_BYTES else None


def _create(path: Path) -> None:
    """Write a new key under a private name and link it into place: the first process wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n"
    private = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write_new(private, text)
        try:
            os.link(private, path)
        except FileExistsError:
            return
        except OSError:
            # No hard links on this file system. Whoever creates the file writes it; `_read` waits
            # for that.
            try:
                _write_new(path, text)
            except FileExistsError:
                return
        logger.info("created the key %s", path)
    finally:
        private.unlink(missing_ok=True)


def _write_new(path: Path, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _tighten(path: Path) -> None:
    mode = path.stat().st_mode
    if os.name != "posix" or not mode & _OTHERS:
        return
    try:
        path.chmod(0o600)
    except OSError as error:
        # Keys that a container platform mounts belong to it; they can be used all the same.
        logger.warning(
            "the key %s can be read by others, and that cannot be changed: %s", path, error.strerror
        )
    else:
        logger.warning("the key %s could be read by others; its permissions are 0600 now", path)


def _read(path: Path) -> bytes:
    deadline = time.monotonic() + _WRITING_SECONDS
    while True:
        content = path.read_bytes()
        if content or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    key = _decode(content.decode("ascii", "replace"))
    if key is None:
        raise StorageError(
            f"The key file {path} is damaged.",
            advice="Restore it from a backup, or delete it: a new key is made at the next start, "
            "and the tokens stored until now have to be entered again.",
        )
    return key
