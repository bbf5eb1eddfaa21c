"""
The table of a stage, which no one else sees, and what it holds once all pages are in.

A staged row is either whole, or, when the target is known to hold the same row already, only its key. Then
``raw_hash`` is null, and the row says no more than that it was seen.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from airflow_provider_m2p.columns.names import META_PREFIX
from airflow_provider_m2p.warehouse.dialect import Dialect

if TYPE_CHECKING:
    from airflow_provider_m2p.columns.kinds import Kind
    from airflow_provider_m2p.columns.names import Path
    from airflow_provider_m2p.columns.shape import Field

log = logging.getLogger(__name__)

_PREFIX: Final = "_m2p_stage"
_MAX_AGE: Final = {"load": 24 * 3600, "review": 7 * 24 * 3600}
_STAGE: Final = re.compile(rf"{_PREFIX}_({'|'.join(_MAX_AGE)})_([0-9a-f]+)_[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Staged:
    """
    What a stage holds once all pages are in: all that is needed to merge it.

    :param table: the stage's table; :func:`column_name` names its columns.
    :param columns: the fields they hold.
    :param kinds: the kinds as which they hold them.
    :param key: paths of the key fields.
    :param ignored: how many values were left out, by the paths of their fields.
    :param rows: how many rows came, those included that are the same as in the target.
    :param children: the same for the elements of each array, by the array's path.
    :param in_place: whether the stage can become the table.
    """

    table: sa.Table
    columns: list[Field]
    kinds: list[Kind]
    key: tuple[Path, ...]
    ignored: dict[Path, int]
    rows: int
    children: dict[Path, Staged]
    in_place: bool = False


def column_name(place: int) -> str:
    """Return the name of a stage's column. No column of a table is ever called so."""
    return f"{META_PREFIX}c{place}"


def order_column() -> sa.Column[int]:
    """Return the column for the order in which rows came. A table that was a stage has it, too, for a moment."""
    return sa.Column(f"{META_PREFIX}ord", sa.BigInteger, nullable=False)


def stage_name(*, for_review: bool) -> str:
    """Return a name that says what a stage is, and since when, so that what was left behind can be swept."""
    return f"{_PREFIX}_{'review' if for_review else 'load'}_{int(time.time()):x}_{secrets.token_hex(4)}"


def stage_table(
    dialect: Dialect,
    name: str,
    schema: str | None,
    columns: list[sa.Column[Any]],
    *,
    for_review: bool = False,
    in_place: bool = False,
) -> sa.Table:
    """
    Return a stage's table. It goes with the connection, where the database has such tables.

    :param columns: those for the rows' values.
    :param for_review: whether it must outlive the connection.
    :param in_place: whether it is to become a table.
    """
    temporary = not (for_review or in_place)
    prefixes = dialect.stage_prefixes if temporary else dialect.review_prefixes if for_review else ()
    return sa.Table(
        name,
        sa.MetaData(),
        *columns,
        sa.Column("row_hash", sa.String(32), nullable=False),
        sa.Column("raw_hash", sa.String(32), nullable=not in_place),
        order_column(),
        schema=None if temporary else schema,
        prefixes=list(prefixes),
    )


def sweep(dialect: Dialect, schema: str | None) -> list[str]:
    """Drop the stages that nobody can still be waiting for, and return their names."""
    swept = []
    for name in sa.inspect(dialect.connection).get_table_names(schema=schema):
        stage = _STAGE.fullmatch(name)
        if stage and time.time() - int(stage[2], 16) > _MAX_AGE[stage[1]]:
            try:
                with dialect.attempt():
                    sa.Table(name, sa.MetaData(), schema=schema).drop(dialect.connection, checkfirst=True)
                swept.append(name)
            except sa.exc.DBAPIError as error:
                # Another user's, or another load was quicker. What is left over is no reason not to load.
                log.warning("The old stage %s stays: %s. Its owner may drop it.", name, type(error.orig).__name__)
    return swept
