"""
The shape of the rows: which fields there are, where they nest, and what was seen in each.

A shape only ever grows. It starts from the columns that exist and takes in every page that the compiled reader
cannot read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from airflow_provider_m2p.columns.kinds import TOKENS_OF, Kind, Num, Tokens, kind_of, tokens_of
from airflow_provider_m2p.columns.names import Path, show
from airflow_provider_m2p.exceptions import M2PResponseError, M2PSchemaError


@dataclass(slots=True, eq=False)
class Field:
    """
    One place in the rows: a column when a plain value was seen in it, a branch when an object was, perhaps both.

    :param path: the API's names from the row down to here.
    :param tokens: the plain values seen.
    :param stored: the kind of the column that exists for it.
    :param position: the column's place in the row hash; ``None`` while it is no column.
    :param always: whether no row (of those that have the enclosing object) lacked it or had it ``null``.
    :param ignored: left out of the table by the schema policy.
    :param dropped: how many values were left out.
    :param filled: how many of the rows that were taken in had a value here.
    :param objects: how many of those values were objects.
    """

    path: Path
    tokens: int = Tokens.NONE
    stored: Kind | None = None
    position: int | None = None
    always: bool = True
    ignored: bool = False
    dropped: int = 0
    filled: int = 0
    objects: int = 0
    children: dict[str, Field] = field(default_factory=dict)

    @property
    def kind(self) -> Kind | None:
        """The kind of column that holds all of it, or ``None`` if it has no plain value."""
        return kind_of(self.tokens)

    def walk(self) -> Iterator[Field]:
        """Yield this field and all below it, in the order in which they were first seen."""
        yield self
        for child in self.children.values():
            yield from child.walk()


class Shape:
    """
    The fields of a list's rows.

    :param key: paths of the key fields: present and not ``null`` in every row.
    :param max_depth: how many levels of objects to flatten; an object below that is a JSON value, unless it holds a
        field of the key.
    :param grows: whether fields without a column get one. If not, they are ignored.
    """

    def __init__(self, key: tuple[Path, ...] = (), *, max_depth: int = 8, grows: bool = True) -> None:
        self.key = key
        self.max_depth = max_depth
        self.grows = grows
        self.root = Field(())
        self.columns: list[Field] = []
        self._decode = msgspec.json.Decoder(float_hook=Num).decode

    def add_column(self, path: Path, kind: Kind) -> None:
        """Add a column that exists in the table. Columns are added in the order of their positions."""
        node = self.root
        for depth in range(len(path)):
            here = path[: depth + 1]
            in_key = any(key[: depth + 1] == here for key in self.key)
            node = node.children.setdefault(path[depth], Field(here, always=in_key))
        node.stored, node.tokens = kind, TOKENS_OF[kind]
        node.position = len(self.columns)
        self.columns.append(node)

    def flattens(self, path: Path) -> bool:
        """Tell whether an object at a path is flattened."""
        return len(path) <= self.max_depth or any(key[: len(path)] == path for key in self.key)

    @property
    def ignored(self) -> dict[Path, int]:
        """How many values were left out, by the paths of the fields that the table does not take."""
        return {node.path: node.dropped for node in self.root.walk() if node.ignored}

    def observe(self, rows: Iterable[msgspec.Raw], page: int) -> None:
        """
        Take in every field of ``rows``.

        :raises M2PResponseError: a row is not an object, or nests deeper than is sane.
        :raises M2PSchemaError: rows without their key.
        """
        keyless = total = 0
        for position, raw in enumerate(rows):
            try:
                row = self._decode(raw)
            except (msgspec.MsgspecError, RecursionError, ValueError) as error:
                raise M2PResponseError(
                    f"Page {page}, row {position} cannot be read: {type(error).__name__}."
                ) from error
            if not isinstance(row, dict):
                raise M2PResponseError(f"Page {page}, row {position} is not an object but {type(row).__name__}.")
            self._observe_object(self.root, row)
            total += 1
            keyless += not all(self._has_key(row, path) for path in self.key)
        if keyless:
            self._refuse_keyless(keyless, total, page)
        self._settle(self.root)

    def _observe_object(self, node: Field, value: dict[str, Any]) -> None:
        node.objects += 1
        children = node.children
        for name, item in value.items():
            child = children.get(name)
            if child is None:
                child = children[name] = Field((*node.path, name))
            if item is None:
                continue
            child.filled += 1
            if item.__class__ is dict and item and self.flattens(child.path):
                self._observe_object(child, item)
            else:
                child.tokens |= tokens_of(item)

    def _settle(self, node: Field) -> None:
        """Decide what the fields below ``node`` are, now that a page was taken in."""
        for child in node.children.values():
            child.always &= child.filled == node.objects
            if child.tokens and child.position is None and not child.ignored:
                if self.grows:
                    child.position = len(self.columns)
                    self.columns.append(child)
                else:
                    child.ignored = True
            self._settle(child)

    @staticmethod
    def _has_key(row: dict[str, Any], path: Path) -> bool:
        value: Any = row
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return value is not None and not isinstance(value, dict | list)

    def _refuse_keyless(self, keyless: int, total: int, page: int) -> None:
        for path in self.key:
            node = self.root
            for part in path:
                node = node.children.get(part, Field(path))
            if not node.tokens:
                if any(n.tokens and ".".join(n.path) == ".".join(path) for n in self.root.walk()):
                    raise M2PSchemaError(
                        f"The key column {show(path)!r} cannot be a field with a dot in its own name, as the rows of "
                        f"page {page} have it: a dot in key_columns stands for a field within an object. Set "
                        "key_columns to other fields that identify a row."
                    )
                known = ", ".join(sorted(show(n.path) for n in self.root.walk() if n.tokens)[:60])
                raise M2PSchemaError(
                    f"No row of page {page} has the key column {show(path)!r}. The rows have: {known}. "
                    "Set key_columns to the fields that identify a row."
                )
        raise M2PSchemaError(
            f"{keyless} of {total} rows of page {page} lack a value of the key ({', '.join(map(show, self.key))}). "
            "Nothing was written: a row without its key cannot be told from another."
        )
