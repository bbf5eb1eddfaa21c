"""PostgreSQL's COPY, fed batch by batch while a thread of its own hands the rows to the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import AbstractContextManager, closing
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, Final

from airflow_provider_m2p.exceptions import M2PLoadError

# Memory that is taken and freed by the megabyte is not given back for long.
_PIECE: Final = 200


class Copy:
    """
    One ``COPY … FROM STDIN``. While it is open, the connection is for nothing else.

    Whoever makes one keeps it before it is started, and ends it, whatever happens: else its thread waits for ever.

    :param statement: the statement.
    :param transaction: gives what the statement runs in.
    :param cursor: gives a cursor of psycopg 3 or psycopg2.
    """

    def __init__(
        self,
        statement: str,
        transaction: Callable[[], AbstractContextManager[None]],
        cursor: Callable[[], Any],
    ) -> None:
        self.statement = statement
        self.ended = False
        self._transaction = transaction
        self._cursor = cursor
        self._batches: SimpleQueue[tuple[list[bytes], Future[None]] | None] = SimpleQueue()
        self._sent: Future[None] | None = None
        self._done: Future[None] | None = None

    def start(self, executor: Executor) -> None:
        """Run the statement."""
        self._done = executor.submit(self._run)

    def write(self, lines: list[bytes]) -> None:
        """
        Send rows, which may still be under way when this returns. Those before them are not.

        :param lines: in COPY's text format, without line ends.
        :raises Exception: whatever went wrong with the rows before.
        """
        assert self._done is not None
        if self._sent is not None:
            wait([self._sent, self._done], return_when=FIRST_COMPLETED)
        if self._done.done():
            self._done.result()
        self._sent = Future()
        self._batches.put((lines, self._sent))

    def end(self) -> None:
        """Say, once or more often, that no more rows will come, and do not wait."""
        self._batches.put(None)
        self.ended = True

    def result(self) -> None:
        """
        Wait for the end of an ended COPY.

        :raises Exception: whatever went wrong.
        """
        if self._done is not None:
            self._done.result()

    def _run(self) -> None:
        count = 0

        def pieces() -> Iterator[bytes]:
            nonlocal count
            while (batch := self._batches.get()) is not None:
                lines, sent = batch
                for start in range(0, len(lines), _PIECE):
                    yield b"\n".join(lines[start : start + _PIECE]) + b"\n"
                count += len(lines)
                sent.set_result(None)

        with self._transaction(), closing(self._cursor()) as cursor:
            source = pieces()
            if hasattr(cursor, "copy"):
                with cursor.copy(self.statement) as copy:
                    for piece in source:
                        copy.write(piece)
            else:
                cursor.copy_expert(self.statement, SimpleNamespace(read=lambda _: next(source, b"")))
            if cursor.rowcount != count:
                raise M2PLoadError(f"Of {count} rows sent, PostgreSQL took {cursor.rowcount}. Nothing was written.")
