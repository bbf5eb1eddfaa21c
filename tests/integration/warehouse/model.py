"""What a table, and the tables of its rows' arrays, hold after some loads: in plain Python, and as a database has it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from tests.integration.warehouse.streams import Warehouse

#: A row's id; an element's is that of its row and its position.
Key = tuple[Any, ...]
Row = dict[str, str]
#: By array, the table itself by "": rows in order, each with its key, what the write mode notes of it, and its values.
State = dict[str, list[tuple[Any, ...]]]


def _row(values: dict[str, Any]) -> Row:
    """Return a row whose values can be compared: of null and missing no trace, of arrays their JSON."""
    return {
        # Some drivers parse JSON.
        name: json.dumps(value, separators=(",", ":")) if isinstance(value, list) else str(value)
        for name, value in values.items()
        if name != "id" and value is not None
    }


class _Table:
    """One table in one write mode."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        #: Rows as they are now, by the load that wrote them.
        self._live: dict[Key, tuple[str, Row]] = {}
        self._past: list[tuple[Key, str, Row]] = []

    def load(self, load: str, attempt: int, rows: dict[Key, Row], read: Collection[Any], complete: bool) -> None:
        name = f"{load}/{attempt}"
        if self._mode == "append":
            kept = [row for row in self._past if row[1] != load or not (complete or row[0][0] in read)]
            self._past = kept + [(key, load, row) for key, row in rows.items()]
            return
        gone = [key for key in self._live if key not in rows and (complete or key[0] in read)]
        changed = [key for key, row in rows.items() if key in self._live and self._live[key][1] != row]
        if self._mode == "history":
            self._past += [(key, f"{self._live[key][0]} to {name}", self._live[key][1]) for key in gone + changed]
        elif self._mode == "upsert":
            self._past = [row for row in self._past if row[0] not in rows]
            self._past += [(key, "deleted", self._live[key][1]) for key in gone]
        for key in gone + changed:
            del self._live[key]
        self._live |= {key: (name, row) for key, row in rows.items() if key not in self._live}

    def state(self, hidden: Collection[str] = ()) -> list[tuple[Any, ...]]:
        notes = "{} to now" if self._mode == "history" else ""
        rows = [*self._past, *((key, notes.format(name), row) for key, (name, row) in self._live.items())]
        return _in_order((key, note, {n: v for n, v in row.items() if n not in hidden}) for key, note, row in rows)


def _in_order(rows: Any) -> list[tuple[Any, ...]]:
    return sorted((key, note, sorted(row.items())) for key, note, row in rows)


class Model:
    """
    A table, and those of its arrays.

    :param mode: the write mode.
    :param arrays: fields with tables of their own.
    """

    def __init__(self, mode: str, arrays: Sequence[str] = ()) -> None:
        self._arrays = arrays
        self._tables = {name: _Table(mode) for name in ("", *arrays)}

    def load(self, load: str, rows: Sequence[dict[str, Any]], *, attempt: int = 1, complete: bool = True) -> None:
        """Take in what a load read; of rows that came twice the last counts."""
        by_id = {row["id"]: row for row in rows}
        self._tables[""].load(load, attempt, {(key,): _row(row) for key, row in by_id.items()}, by_id, complete)
        for array in self._arrays:
            elements = {
                (key, position): _row(element if isinstance(element, dict) else {"value": element})
                for key, row in by_id.items()
                for position, element in enumerate(row.get(array) or ())
            }
            self._tables[array].load(load, attempt, elements, by_id, complete)

    def state(self) -> State:
        return {name: table.state(self._arrays) for name, table in self._tables.items()}


def found(warehouse: Warehouse, table: str, mode: str, arrays: Sequence[str] = ()) -> State:
    """Return what the database holds, as :meth:`Model.state` has it."""
    with warehouse.engine.connect() as connection:
        there = sa.inspect(connection).get_table_names()

        def rows(name: str) -> list[dict[str, Any]]:
            found = connection.exec_driver_sql(f"SELECT * FROM {name}").mappings() if name in there else ()
            return [dict(row) for row in found]

        loads = {
            row["finished_at"]: f"{row['load_id']}/{row['attempt']}"
            for row in rows("_m2p_loads")
            if row["table_name"] == table
        }
        return {
            name: _in_order(_found(row, mode, loads) for row in rows(f"{table}__{name}" if name else table))
            for name in ("", *arrays)
        }


def _found(row: dict[str, Any], mode: str, loads: dict[Any, str]) -> tuple[Key, str, Row]:
    """Return a row's key, what its write mode notes of it, and its values."""
    key: Key = (row.pop("id"),)
    if "_m2p_position" in row:
        key = *key, row["_m2p_position"]
    note = ""
    if mode == "append":
        note = row["_m2p_load_id"]
    elif mode == "upsert":
        note = "" if row["_m2p_deleted_at"] is None else "deleted"
    elif mode == "history":
        end = row["_m2p_valid_to"]
        note = f"{loads[row['_m2p_valid_from']]} to {'now' if end is None else loads[end]}"
    return key, note, _row({name: value for name, value in row.items() if not name.startswith("_m2p_")})
