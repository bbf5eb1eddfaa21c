"""A sequence of catalogues that never ends, and the state in which each must leave a table."""

from __future__ import annotations

from typing import Any, Final

from tests.integration.warehouse.streams import Warehouse

Row = dict[str, str]

IDS: Final = range(40)
#: The table changes after so many loads, so that it does not grow without end.
LOADS_PER_TABLE: Final = 30


def table_of(turn: int) -> str:
    return f"t{turn // LOADS_PER_TABLE}"


def catalogue(turn: int) -> list[dict[str, Any]]:
    """
    Return the rows of one turn.

    Every turn a quarter of the rows change, some disappear and some return. Every third turn brings a new field, which is a
    text the turn after.
    """
    rows: list[dict[str, Any]] = []
    for n in IDS:
        if (n + turn) % 7:
            row: dict[str, Any] = {"id": f"p{n}", "v": (turn + n) // 4}
            if n % 5 == 0:
                row[f"f{turn // 3}"] = turn if turn % 3 == 0 else f"s{turn}"
            rows.append(row)
    return rows


def load(warehouse: Warehouse, mode: str, turn: int, attempt: int = 1) -> dict[str, Any]:
    rows = catalogue(turn)
    pages = [rows[start : start + 10] for start in range(0, len(rows), 10)]
    spec = {"write_mode": mode, "table": table_of(turn), "load_id": f"turn-{turn}", "attempt": attempt}
    return warehouse.load(*pages, max_delete_ratio=1, lock_seconds=60, **spec)


def expected(mode: str, turn: int) -> list[tuple[Any, ...]]:
    """Return what the table holds after a turn: rows with their state, sorted."""
    turns = range(turn - turn % LOADS_PER_TABLE, turn + 1)
    states = {t: {row["id"]: {k: str(v) for k, v in row.items()} for row in catalogue(t)} for t in turns}
    if mode == "append":
        found = [(f"turn-{t}", row) for t, rows in states.items() for row in rows.values()]
    elif mode == "replace":
        found = [("", row) for row in states[turn].values()]
    elif mode == "upsert":
        last = {key: row for rows in states.values() for key, row in rows.items()}
        found = [("" if key in states[turn] else "deleted", row) for key, row in last.items()]
    else:
        found = _history(states)
    return sorted((state, sorted(row.items())) for state, row in found)


def _history(states: dict[int, dict[str, Row]]) -> list[tuple[str, Row]]:
    intervals: list[tuple[str, Row]] = []
    for key in (f"p{n}" for n in IDS):
        state: Row | None = None
        start = 0
        for turn, rows in states.items():
            row = rows.get(key)
            if row != state:
                if state is not None:
                    intervals.append((f"{start}-{turn}", state))
                state, start = row, turn
        if state is not None:
            intervals.append((f"{start}-", state))
    return intervals


def found(warehouse: Warehouse, mode: str, turn: int) -> list[tuple[Any, ...]]:
    """Return what the table holds, as :func:`expected` has it."""
    if turn < 0 or table_of(turn) not in warehouse.tables():
        return []
    loads = {row["finished_at"]: row["load_id"].removeprefix("turn-") for row in warehouse.loads()}
    rows = []
    for row in warehouse.read(table_of(turn), meta=True):
        state = {"append": row["_m2p_load_id"], "replace": ""}.get(mode)
        if mode == "upsert":
            state = "" if row["_m2p_deleted_at"] is None else "deleted"
        elif mode == "history":
            end = row["_m2p_valid_to"]
            state = f"{loads[row['_m2p_valid_from']]}-{'' if end is None else loads[end]}"
        data = {k: str(v) for k, v in row.items() if v is not None and not k.startswith("_m2p_")}
        rows.append((state, sorted(data.items())))
    return sorted(rows)
