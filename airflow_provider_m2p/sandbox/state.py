"""Everything the sandbox must not forget, in one SQLite database: a file, or memory."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, used INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS products (
    tenant TEXT, product_id TEXT, body BLOB, PRIMARY KEY (tenant, product_id));
CREATE TABLE IF NOT EXISTS clients (client_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, role TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS secrets (
    client_id TEXT NOT NULL, digest BLOB NOT NULL, valid_until REAL, PRIMARY KEY (client_id, digest));
CREATE TABLE IF NOT EXISTS tokens (jti TEXT PRIMARY KEY, client_id TEXT NOT NULL, expires REAL NOT NULL);
CREATE TABLE IF NOT EXISTS revoked (jti TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS changes (
    change_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, product_id TEXT NOT NULL, status TEXT NOT NULL,
    body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    client_id TEXT, request_id TEXT, fingerprint BLOB NOT NULL, status INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (client_id, request_id));
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, tenant TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    target TEXT NOT NULL, outcome TEXT NOT NULL, request_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS audit_tenant ON audit (tenant, number);
"""


class State:
    """
    The database, usable from any thread.

    :param path: SQLite file; ``None`` keeps everything in memory.
    """

    def __init__(self, path: str | None = None) -> None:
        # Whoever else guards something under a lock uses this one, so that two locks are never taken in two orders.
        self.lock = threading.RLock()
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        if path:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(SCHEMA)

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, a transaction of its own outside :meth:`transaction`, and return its rows."""
        with self.lock:
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the statements of a block one transaction, and keep other threads out meanwhile."""
        with self.lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def close(self) -> None:
        with self.lock:
            self._db.close()

    def remembered(self, name: str, value: str) -> str:
        """The value first given under this name: now, or in an earlier life of the state file."""
        self.run("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
        return str(self.run("SELECT value FROM meta WHERE name = ?", (name,))[0][0])

    def next_number(self, name: str) -> int:
        """0, 1, 2, ... for each name."""
        sql = "INSERT INTO numbers VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET used = used + 1 RETURNING used - 1"
        return int(self.run(sql, (name,))[0][0])

    def keep_product(self, tenant: str, product_id: str, body: bytes | None) -> None:
        """Remember that a product was added, changed or (``body=None``) removed since the seed made it."""
        self.run("INSERT OR REPLACE INTO products VALUES (?, ?, ?)", (tenant, product_id, body))

    def products_changed(self, tenant: str) -> Iterator[tuple[str, bytes | None]]:
        """What :meth:`keep_product` remembers of a tenant."""
        sql = "SELECT product_id, body FROM products WHERE tenant = ? ORDER BY rowid"
        return iter([(row[0], row[1]) for row in self.run(sql, (tenant,))])
