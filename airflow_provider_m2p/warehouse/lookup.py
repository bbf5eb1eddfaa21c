"""Which rows of a page a table has already: what is asked, and what is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa

if TYPE_CHECKING:
    from airflow_provider_m2p.columns.keys import Key

#: In place of the last digit of a raw hash: the row may have lost fields to the schema policy.
INCOMPLETE = "-"

#: The rows of a page that a table does not have just as they came, by their places, each with the canonical hash of the
#: row that it has instead, or an empty text.
Others: TypeAlias = "dict[int, str]"
#: Stages a page's rows as far as the table has them, and returns the others. Takes the order of the page's first row,
#: the rows' keys as texts, and the hashes of the rows as they were sent.
Finder: TypeAlias = "Callable[[int, list[Key], list[str]], Others]"


@dataclass(frozen=True, slots=True)
class Held:
    """
    The rows that a table holds, to be looked up by their keys.

    :param table: the table.
    :param keys: its key columns, texts or integers.
    :param where: which of its rows count.
    """

    table: sa.Table
    keys: list[sa.Column[Any]]
    where: sa.ColumnElement[bool]
