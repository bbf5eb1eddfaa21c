"""
Who shares a token: the threads of a process, and the tasks of a host.

On disk a token is a file of its owner alone, in a directory of its owner alone, encrypted with a key that only the
client secret yields: the file without the secret is worth nothing, and a rotated secret reads nothing of the old one's.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

import msgspec

from airflow_provider_m2p.client.retry import Cancellation
from airflow_provider_m2p.client.settings import ClientSettings
from airflow_provider_m2p.client.token import Clock, Token
from airflow_provider_m2p.exceptions import M2PAuthError

#: Where the token directory is made; without it, the user's cache directory, then the temporary one.
CACHE_DIR_VARIABLE = "M2P_CACHE_DIR"

#: Seconds to wait for another process to fetch a token, before fetching one without it.
_LOCK_SECONDS = 120.0
_LOCK_POLL_SECONDS = 0.05
#: Seconds for which refused credentials are not sent again: the threads of a client would each ask.
_REFUSAL_SECONDS = 30.0
_SWEEP_SECONDS = 2 * 86_400.0
_MAX_FILE_BYTES = 64 * 1024
_NONCE_BYTES = 12
_VERSION = b"m2p-token-1"

log = logging.getLogger(__name__)


class TokenSource:
    """
    Hands out tokens, from the caches if it can.

    :param settings: the credential, and which caches to use.
    :param fetch: asks the platform for a new token.
    :param clock: the time.
    :param on_secret: told every token before it is handed out.
    """

    def __init__(
        self,
        settings: ClientSettings,
        fetch: Callable[[Cancellation], Token],
        clock: Clock,
        on_secret: Callable[[str], None],
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._on_secret = on_secret
        self._announced: str | None = None
        self._slot = _Slot() if settings.token_cache == "off" else _shared_slot(settings, clock)
        self._file = _TokenFile(settings) if settings.token_cache == "disk" else None
        self._refusal: tuple[float, M2PAuthError] | None = None

    def get(self, stop: Cancellation) -> Token:
        """
        Return a token that is fresh.

        :param stop: the reader it is for.
        """
        with self._slot.lock:
            token = self._slot.token
            if not self._is_good(token):
                token = self._slot.token = self._renew(stop)
        if token.value != self._announced:
            self._on_secret(token.value)
            self._announced = token.value
        return token

    def drop(self, token: Token) -> None:
        """
        Forget a token the platform refused, unless somebody has replaced it already.

        :param token: the token.
        """
        with self._slot.lock:
            # Where it is on disk, too, the next one takes its place.
            self._slot.refused = token.value

    def _is_good(self, token: Token | None) -> TypeGuard[Token]:
        return token is not None and token.value != self._slot.refused and token.fresh(self._clock)

    def _renew(self, stop: Cancellation) -> Token:
        file = self._file
        if file is None:
            return self._ask(stop)
        token = file.load()
        if not self._is_good(token):
            with file.turn(stop, lambda: self._is_good(file.load())):
                token = file.load()
                if not self._is_good(token):
                    token = self._ask(stop)
                    file.save(token)
        return token

    def _ask(self, stop: Cancellation) -> Token:
        now = self._clock.steady()
        if self._refusal is not None and now - self._refusal[0] < _REFUSAL_SECONDS:
            raise self._refusal[1]
        try:
            token = self._fetch(stop)
        except M2PAuthError as error:
            self._refusal = (now, error)
            raise
        # Even if it is the same one again: to refuse it for ever would be to ask for ever.
        self._slot.refused = None
        return token


class _Slot:
    """The token of one credential in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.token: Token | None = None
        self.refused: str | None = None


_slots: dict[bytes, _Slot] = {}
_slots_lock = threading.Lock()


def clear() -> None:
    """Forget all tokens of this process."""
    # A lock copied by fork() may be held by a thread that is not there.
    global _slots_lock
    _slots_lock = threading.Lock()
    _slots.clear()


os.register_at_fork(after_in_child=clear)


def _shared_slot(settings: ClientSettings, clock: Clock) -> _Slot:
    key = _digest(settings, settings.client_secret)
    with _slots_lock:
        for other, slot in list(_slots.items()):
            stale = slot.token is not None and not slot.token.fresh(clock)
            if other != key and stale and not slot.lock.locked():
                del _slots[other]
        return _slots.setdefault(key, _Slot())


def _digest(settings: ClientSettings, *more: str) -> bytes:
    """Name a credential. The tenant is no part of it: the token call does not name one, so its tokens are shared."""
    parts = (settings.base_url, settings.token_path, settings.client_id, *more)
    return hashlib.sha256(msgspec.json.encode(parts)).digest()


class _TokenFile:
    """
    The token of one credential on this host. No failure of the disk is a failure of the task.

    :param settings: the credential.
    """

    def __init__(self, settings: ClientSettings) -> None:
        # Where machines share a home directory, each has its own file: they do not share a steady clock.
        self._identity = _digest(settings, os.uname().nodename)
        self._secret = settings.client_secret
        self._conn_id = settings.conn_id

    @cached_property
    def _path(self) -> Path | None:
        problems: list[str] = []
        for candidate in _candidates():
            try:
                return _own_directory(candidate) / f"{self._identity.hex()[:32]}.token"
            except OSError as error:
                problems.append(f"{candidate} ({error.strerror or error})")
        _warn_once("tokens are not shared between tasks, as there is no directory for them: %s", ", ".join(problems))
        return None

    @cached_property
    def _key(self) -> bytes:
        return hashlib.scrypt(self._secret.encode(), salt=self._identity, n=2**14, r=8, p=1, dklen=32)

    @contextmanager
    def turn(self, stop: Cancellation, done: Callable[[], bool]) -> Iterator[None]:
        """
        Wait until no other process of this host fetches the token, or until one has. Without locks, go on at once.

        :param stop: the reader it is for.
        :param done: tells whether another process has fetched it.
        """
        import filelock

        lock = filelock.FileLock(self._path.with_suffix(".lock"), mode=0o600) if self._path else None
        deadline = time.monotonic() + _LOCK_SECONDS
        while lock is not None and not lock.is_locked:
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                if done() or time.monotonic() > deadline:
                    break
                stop.sleep(_LOCK_POLL_SECONDS)
            except (OSError, NotImplementedError) as error:
                _warn_once("tokens are not shared between tasks, as their file cannot be locked: %s", str(error))
                break
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def load(self) -> Token | None:
        """Return the token in the file; a file that is not ours, not whole or not of this secret is no file."""
        if self._path is None:
            return None
        try:
            sealed = _read_own_file(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.debug("Token file of connection %s is ignored: %s", self._conn_id, error.strerror or error)
            return None
        return self._unseal(sealed)

    def save(self, token: Token) -> None:
        """
        Replace the file in one step.

        :param token: the new token.
        """
        if self._path is None:
            return
        new = self._path.with_suffix(".new")
        try:
            with suppress(FileNotFoundError):
                new.unlink()
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(self._seal(token))
            new.replace(self._path)
            _sweep(self._path)
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            _warn_once("tokens are not shared between tasks, as their file cannot be written: %s", str(error.strerror))

    def _seal(self, token: Token) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self._key).encrypt(nonce, msgspec.json.encode(token), _VERSION + self._identity)

    def _unseal(self, sealed: bytes) -> Token | None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            plain = AESGCM(self._key).decrypt(nonce, text, _VERSION + self._identity)
            return msgspec.json.decode(plain, type=Token)
        except (InvalidTag, ValueError):
            log.debug("Token file of connection %s is ignored: not of this client secret, or damaged", self._conn_id)
            return None


def _candidates() -> Iterator[Path]:
    chosen = os.environ.get(CACHE_DIR_VARIABLE)
    if chosen:
        yield Path(chosen) / "airflow-provider-m2p"
        return
    cache = os.environ.get("XDG_CACHE_HOME")
    if cache and Path(cache).is_absolute():
        yield Path(cache) / "airflow-provider-m2p"
    else:
        with suppress(RuntimeError):
            yield Path.home() / ".cache" / "airflow-provider-m2p"
    yield Path(tempfile.gettempdir()) / f"airflow-provider-m2p-{os.geteuid()}"


def _own_directory(path: Path) -> Path:
    """Return the directory once it is there, is no link, and is ours alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"not a directory of user {os.geteuid()}")
    if found.st_mode & 0o077:
        path.chmod(0o700)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError("not writable")
    return path


def _read_own_file(path: Path) -> bytes:
    # Not blocking, should somebody have put a pipe there.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError("not a file of this user alone")
        return file.read(_MAX_FILE_BYTES)


def _sweep(path: Path) -> None:
    """Remove the files of credentials that are not used any more: no token lives that long."""
    newest = path.stat().st_mtime
    for other in path.parent.glob("*.token"):
        with suppress(OSError):
            if newest - other.lstat().st_mtime > _SWEEP_SECONDS:
                other.unlink()


_warned: set[str] = set()


def _warn_once(message: str, detail: str) -> None:
    if message not in _warned:
        _warned.add(message)
        log.warning("M2P " + message, detail)  # noqa: G003 - the key is the constant part
