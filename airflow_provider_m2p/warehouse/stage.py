"""The stage while it is filled: rows on their way, in the form they had when they were read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from airflow_provider_m2p.columns.compiled import NULL, Cells, escape
from airflow_provider_m2p.columns.elements import element_rows, parent_json
from airflow_provider_m2p.columns.keys import Key, KeyReader, key_reader
from airflow_provider_m2p.columns.kinds import Kind, Tokens, utc
from airflow_provider_m2p.columns.names import show
from airflow_provider_m2p.columns.reader import RowReader, Rows, row_hashes
from airflow_provider_m2p.exceptions import M2PSchemaError
from airflow_provider_m2p.warehouse.dialect import Dialect
from airflow_provider_m2p.warehouse.lookup import INCOMPLETE, Finder, Held, Others
from airflow_provider_m2p.warehouse.staged import Staged, column_name, stage_name, stage_table

if TYPE_CHECKING:
    from airflow_provider_m2p.client.page import Page
    from airflow_provider_m2p.columns.names import Path
    from airflow_provider_m2p.columns.shape import Shape

_OWN_COLUMNS: Final = 3


@dataclass(frozen=True, slots=True)
class _Asked:
    """
    A page whose rows are being looked up in the target.

    :param page: the page.
    :param first: the order of its first row.
    :param hashes: of its rows, as they were sent.
    :param keys: of its rows; none if nothing was looked up.
    :param others: waits for the rows that the target does not hold; ``None`` if nothing was looked up.
    """

    page: Page
    first: int
    hashes: list[str]
    keys: list[Key]
    others: Callable[[], Others] | None


class Stage:
    """
    The stage of one load.

    :param dialect: the database.
    :param shape: the shape of the rows; the stage has a column for each of its columns.
    :param known: the rows that the target holds; ``None`` if it holds none.
    :param child_stage: gives the stage for the elements of an array; ``None`` where arrays are JSON columns.
    :param for_review: whether the stage must outlive this connection.
    :param in_place: whether it is to become the table, in the transaction that is under way.
    :param schema: where it then lives.
    """

    def __init__(
        self,
        dialect: Dialect,
        shape: Shape,
        known: Held | None = None,
        child_stage: Callable[[Path], Stage] | None = None,
        *,
        for_review: bool = False,
        in_place: bool = False,
        schema: str | None = None,
    ) -> None:
        self._dialect = dialect
        self.shape = shape
        self._known = known
        self._child_stage = child_stage
        self.children: dict[Path, Stage] = {}
        self._reader = RowReader(shape)
        self._kinds: list[Kind] = []
        self._instants: list[int] = []
        self._read_keys: KeyReader | None = None
        self._find: Finder | None = None
        self._lines: list[bytes] = []
        self._cells: list[Cells] = []
        self._same: list[tuple[int, str, Key]] = []
        self._asked: _Asked | None = None
        self.rows = 0
        self._in_place = in_place
        self._exists = False
        self._new_table = partial(
            stage_table, dialect, stage_name(for_review=for_review), schema, for_review=for_review, in_place=in_place
        )
        self.table = self._new_table([])
        self._fit()

    def staged(self) -> Staged:
        """Write what waits, and return what the stage holds."""
        self.flush()
        self._dialect.settle()
        children = {path: child.staged() for path, child in self.children.items()}
        return Staged(
            self.table,
            self.shape.columns,
            self._kinds,
            self.shape.key,
            self.shape.ignored,
            self.rows,
            children,
            self._in_place,
        )

    def keys(self) -> list[sa.Column[Any]]:
        """Return the staged key columns, in the order of the shape's key."""
        places = {column.path: place for place, column in enumerate(self.shape.columns)}
        return [self.table.c[column_name(places[path])] for path in self.shape.key if path in places]

    def drop(self) -> None:
        """Remove the stage, and those of its arrays."""
        for child in self.children.values():
            child.drop()
        if self._exists and not self._in_place:
            with self._dialect.step():
                self.table.drop(self._dialect.connection, checkfirst=False)

    def add(self, page: Page) -> None:
        """
        Take in the rows of a page, or if they have to be looked up those of the page before it meanwhile.

        :raises M2PResponseError: a row cannot be understood.
        :raises M2PSchemaError: a row lacks its key, or holds what the database cannot.
        """
        before, self._asked = self._asked, self._ask(page)
        self._take(before)
        if self._asked.others is None:
            self.finish()

    def finish(self) -> None:
        """Take in the rows of the last page."""
        before, self._asked = self._asked, None
        self._take(before)

    def _take(self, asked: _Asked | None) -> None:
        if asked is None:
            return
        page, first, hashes = asked.page, asked.first, asked.hashes
        if asked.others is not None:
            self._add_others(asked, asked.others())
        else:
            for start in range(0, len(page.rows), self._dialect.batch_rows):
                some = slice(start, start + self._dialect.batch_rows)
                rows = self._read(page.rows[some], page, page.rows)
                canonical = row_hashes(rows.lines)
                self._put(range(first + start, first + start + len(canonical)), canonical, hashes[some], rows, page)

    def _add_others(self, asked: _Asked, others: Others) -> None:
        """Take in the rows that the target does not hold just as they were sent; some it holds in another spelling."""
        page, places = asked.page, list(others)
        rows = self._read([page.rows[n] for n in places], page)
        canonical = row_hashes(rows.lines)
        # Arrays may have to be read anew although the row is the same: in another form than they were stored in.
        always = self._child_stage is not None
        changed: list[int] = []
        for place, n in enumerate(places):
            if always or others[n] != canonical[place]:
                changed.append(place)
            else:
                self._same.append((asked.first + n, others[n], asked.keys[n]))
        self._put(
            [asked.first + places[place] for place in changed],
            [canonical[place] for place in changed],
            [asked.hashes[places[place]] for place in changed],
            rows.at(changed),
            page,
        )

    def _read(self, raws: list[msgspec.Raw], page: Page, whole: list[msgspec.Raw] | None = None) -> Rows:
        # Lines give the canonical hash everywhere; cells are wanted where there is no COPY, and to look into rows.
        cells = not self._dialect.takes_lines or self._child_stage is not None
        rows = self._reader.read(raws, page.number, whole=whole, cells=cells, has_escapes=page.has_escapes)
        self._fit()
        if page.has_escapes:
            json_cells = {place for place, kind in enumerate(self._kinds) if kind is Kind.JSON}
            names = [show(column.path) for column in self.shape.columns]
            self._dialect.refuse_unstorable(rows.lines, names, json_cells, page.number)
        if cells and self._dialect.key_length is not None:
            self._refuse_long_keys(rows.columns, page.number, self._dialect.key_length)
        return rows

    def _refuse_long_keys(self, cells: list[Sequence[str | None]], page: int, limit: int) -> None:
        """Refuse keys that are too long, before the database cuts off the spaces at their end in silence."""
        for column, texts in zip(self.shape.columns, cells, strict=True):
            if column.path in self.shape.key and any(len(text or "") > limit for text in texts):
                raise M2PSchemaError(
                    f"Page {page} holds a key with more than {limit} characters, the most in this database: field "
                    f"{show(column.path)!r}. Nothing was written. Choose other key_columns."
                )

    def _put(self, orders: Sequence[int], canonical: list[str], hashes: list[str], rows: Rows, page: Page) -> None:
        """Put whole rows with those that wait to be written, and the elements of their arrays into their stages."""
        if self._dialect.takes_lines:
            self._lines += [
                f"{order}\t{row_hash}\t{raw_hash}\t".encode() + line
                for order, row_hash, raw_hash, line in zip(orders, canonical, hashes, rows.lines, strict=True)
            ]
        else:
            self._cells += zip(map(str, orders), canonical, hashes, *self._storable(rows.columns), strict=True)
        if self._child_stage is not None and orders:
            self._put_elements(orders, rows.columns, page)
        if len(self._lines) + len(self._cells) + len(self._same) >= self._dialect.batch_rows:
            self.flush()

    def _put_elements(self, orders: Sequence[int], cells: list[Sequence[str | None]], page: Page) -> None:
        """Stage the elements of the rows' arrays, each under its row's own order."""
        columns = self.shape.columns
        by_path = {column.path: place for place, column in enumerate(columns)}
        key = [by_path[path] for path in self.shape.key]
        kinds = [self._kinds[place] for place in key]
        keys = zip(*(cells[place] for place in key), strict=True)
        parents = [parent_json(self.shape.key, kinds, own) for own in keys]
        for place in (place for place, column in enumerate(columns) if column.tokens == Tokens.ARRAY):
            of: list[int] = []
            elements: list[msgspec.Raw] = []
            for order, array, parent in zip(orders, cells[place], parents, strict=True):
                if array is not None:
                    found = list(element_rows(array, parent))
                    elements += found
                    of += [order] * len(found)
            if any(array is not None for array in cells[place]):
                self.child(columns[place].path).add_elements(of, elements, page)

    def child(self, path: Path) -> Stage:
        """Return the stage for the elements of an array."""
        if path not in self.children:
            assert self._child_stage is not None
            self._dialect.settle()
            self.children[path] = self._child_stage(path)
        return self.children[path]

    def add_elements(self, orders: list[int], elements: list[msgspec.Raw], page: Page) -> None:
        """
        Take in the elements of a page's arrays.

        :param orders: those of the parents' rows.
        """
        if elements:
            rows = self._read(elements, page)
            self._put(orders, row_hashes(rows.lines), self._raw_hashes(elements), rows, page)
            self.rows += len(elements)

    def _ask(self, page: Page) -> _Asked:
        """Begin to look up the rows of a page in the target."""
        first, self.rows = self.rows, self.rows + len(page.rows)
        hashes = self._raw_hashes(page.rows)
        if self._find is None or self._read_keys is None or not page.rows:
            return _Asked(page, first, hashes, [], None)
        try:
            keys = self._read_keys(page.rows)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # The full reader will say what is wrong, or widen the key.
            return _Asked(page, first, hashes, [], None)
        return _Asked(page, first, hashes, keys, self._dialect.ask(partial(self._find, first, keys, hashes)))

    def _raw_hashes(self, rows: list[msgspec.Raw]) -> list[str]:
        """
        Return the hashes by which a row is known without being read.

        Rows flattened to another depth have other hashes. A row that may have lost fields to the schema policy is
        marked: it counts as known only as long as the policy leaves those fields out.
        """
        start = min(self.shape.max_depth, 32)
        if self.shape.grows:
            return [sha256(row).hexdigest()[start : start + 32] for row in rows]
        return [sha256(row).hexdigest()[start : start + 31] + INCOMPLETE for row in rows]

    def _storable(self, columns: list[Sequence[str | None]]) -> list[Sequence[str | None]]:
        """Put the instant in UTC before its spelling, for databases that cannot read every spelling."""
        storable = list(columns)
        for place in self._instants:
            storable[place] = [None if cell is None else f"{utc(cell)} {cell}" for cell in columns[place]]
        return storable

    def _fit(self) -> None:
        """Bring the stage into the form of the shape."""
        kinds = [kind for column in self.shape.columns if (kind := column.kind) is not None]
        if kinds == self._kinds:
            return
        self._dialect.check_columns(len(kinds) + _OWN_COLUMNS)
        self.flush()
        self._dialect.settle()
        in_key = [column.path in self.shape.key for column in self.shape.columns]
        types = [self._dialect.stage_type(kind, key=key) for kind, key in zip(kinds, in_key, strict=True)]
        new = [
            # A table whose key is not null from the start need not be searched for nulls before it gets the key.
            sa.Column(column_name(place), types[place], nullable=not (self._in_place and in_key[place]))
            for place in range(len(self._kinds), len(kinds))
        ]
        with self._dialect.step():
            for place, kind in enumerate(self._kinds):
                if kind is not kinds[place]:
                    column = self.table.c[column_name(place)]
                    self._dialect.widen_staged(self.table, column, kind, kinds[place], key=in_key[place])
                    column.type = types[place]
            if self._exists:
                self._dialect.add_columns(self.table, new)
                for column in new:
                    self.table.append_column(column)
            else:
                self.table = self._new_table(new)
                self.table.create(self._dialect.connection)
                self._exists = True
        self._kinds = kinds
        self._instants = [place for place, kind in enumerate(kinds) if kind is Kind.INSTANT]
        self._find = self._read_keys = None
        key = [column for column in self.shape.columns if column.path in self.shape.key]
        # Keys of a kind that the target does not have yet are no keys to look up there.
        if self._known is not None and all(column.kind is column.stored for column in key):
            self._read_keys = key_reader(self.shape)
            self._find = self._dialect.finder(self._known, self.table, self.keys(), incomplete=not self.shape.grows)

    def flush(self) -> None:
        """Write what waits, perhaps while the caller goes on."""
        lines, cells, same = self._lines, self._cells, self._same
        if not (lines or cells or same):
            return
        self._lines, self._cells, self._same = [], [], []
        own, dialect = self.table.c, self._dialect
        meta = [own._m2p_ord, own.row_hash, own.raw_hash]
        whole, narrow = [*meta, *(own[column_name(place)] for place in range(len(self._kinds)))], [*meta, *self.keys()]
        if dialect.takes_lines:
            seen = ["\t".join((str(n), row_hash, NULL, *map(escape, key))).encode() for n, row_hash, key in same]
            for into, what in ((whole, lines), (narrow, seen)):
                if what:
                    dialect.write_lines(self.table, into, what, in_place=self._in_place)
        else:
            keys: list[Cells] = [(str(n), row_hash, None, *key) for n, row_hash, key in same]
            for into, rows in ((whole, cells), (narrow, keys)):
                if rows:
                    dialect.write_cells(self.table, into, rows)
