"""A sequence of catalogues that never ends, and the state in which each must leave a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tests.integration.warehouse import model
from tests.integration.warehouse.streams import Warehouse

IDS: Final = range(40)
#: The table changes after so many turns, so that it does not grow without end. Every second one has tables of its arrays.
TURNS_PER_TABLE: Final = 8

#: A turn and the attempt at it.
Load = tuple[int, int]


def table_of(turn: int) -> str:
    return f"t{turn // TURNS_PER_TABLE}"


def arrays_of(turn: int) -> tuple[str, ...]:
    """Return the fields that have tables of their own."""
    return ("fees",) if turn // TURNS_PER_TABLE % 2 else ()


def catalogue(turn: int, attempt: int = 1) -> list[dict[str, Any]]:
    """
    Return the rows of one turn.

    Every turn a quarter of the rows change, some disappear and some return, as do elements of their arrays. Every third turn
    brings a new field, which is a text the turn after. The platform moved on before the second attempt: it reads other rows.
    """
    later = 0 if attempt == 1 else 2
    rows: list[dict[str, Any]] = []
    for n in IDS:
        if (n + turn + later) % 7:
            state = (n + turn + later) // 4
            row: dict[str, Any] = {"id": f"p{n}", "v": state, "fees": [{"no": state + i} for i in range(state % 3)]}
            if n % 5 == 0:
                row[f"f{turn // 3}"] = turn if turn % 3 == 0 else f"s{turn}"
            rows.append(row)
    return rows


def load(warehouse: Warehouse, mode: str, turn: int, attempt: int = 1) -> dict[str, Any]:
    rows = catalogue(turn, attempt)
    pages = [rows[start : start + 10] for start in range(0, len(rows), 10)]
    spec = {"write_mode": mode, "table": table_of(turn), "load_id": f"turn-{turn}", "attempt": attempt}
    return warehouse.load(*pages, max_delete_ratio=1, lock_seconds=60, child_tables=bool(arrays_of(turn)), **spec)


def expected(mode: str, turn: int, loads: Iterable[Load]) -> model.State:
    """Return what the turn's table holds after these loads."""
    table = model.Model(mode, arrays_of(turn))
    for done, attempt in loads:
        if table_of(done) == table_of(turn):
            table.load(f"turn-{done}", catalogue(done, attempt), attempt=attempt)
    return table.state()


def found(warehouse: Warehouse, mode: str, turn: int) -> model.State:
    """Return what the turn's table holds."""
    return model.found(warehouse, table_of(turn), mode, arrays_of(turn))
