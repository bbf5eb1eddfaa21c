"""What a load is asked to do, and what it reports. Plain data, cheap to import."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

WriteMode = Literal["append", "replace", "upsert", "history"]
SchemaPolicy = Literal["evolve", "freeze", "ignore"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadSpec:
    """
    One load of one list into one table.

    :param table: the target table's name.
    :param schema: its schema; ``None`` for the connection's default.
    :param tenant_id: the tenant whose rows these are; part of every key, and the limit of every delete.
    :param load_id: the same for every attempt of the same task run.
    :param key_columns: the API's names of the fields that identify a row within the tenant.
    :param write_mode: ``append``, ``replace``, ``upsert`` or ``history`` (SCD type 2).
    :param schema_policy: ``evolve`` the table, ``freeze`` it (any change is an error), or ``ignore`` unknown fields.
    :param max_delete_ratio: the largest share (0 to 1) of the tenant's rows that one load may delete; 1 allows all,
        an empty answer included.
    :param max_depth: levels of nested objects to flatten; deeper ones become JSON columns.
    :param child_tables: put arrays into child tables ``<table>__<field>`` instead of JSON columns.
    :param exclude_columns: the API's names of fields to leave out, with dots for nested ones.
    :param hash_columns: fields of which only a hash is kept.
    :param attempt: the try number, for the audit row.
    :param dag_id: where the load comes from, for the audit row (as ``run_id``, ``task_id``, ``map_index``).
    """

    table: str
    schema: str | None = None
    tenant_id: str
    load_id: str
    key_columns: tuple[str, ...] = ("productId",)
    write_mode: WriteMode = "upsert"
    schema_policy: SchemaPolicy = "evolve"
    max_delete_ratio: float = 0.5
    max_depth: int = 8
    child_tables: bool = False
    exclude_columns: tuple[str, ...] = ()
    hash_columns: tuple[str, ...] = ()
    attempt: int = 1
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int = -1

    @property
    def full_name(self) -> str:
        """The table's name with its schema, for people."""
        return f"{self.schema}.{self.table}" if self.schema else self.table


@dataclass(kw_only=True, slots=True)
class LoadResult:
    """Counts of one load, as they stand in ``_m2p_loads`` and in the task's XCom."""

    load_id: str
    tenant_id: str
    table: str
    write_mode: WriteMode
    pages: int = 0
    rows_read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    duplicates: int = 0
    schema_changes: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types."""
        return asdict(self)
