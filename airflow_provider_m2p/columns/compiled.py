"""
A decoder for one state of a shape, which reads rows column by column.

msgspec decodes rows into structs made for the shape. Structs become tuples, and the tuples of many rows columns, all
in C; what is left to do in Python is done to a column at a time, and only to those that need it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from airflow_provider_m2p.columns.kinds import INT64_MAX, INT64_MIN, Kind, Num, Tokens, all_are, tokens_of
from airflow_provider_m2p.columns.shape import Field, Shape

Cells = tuple[str | None, ...]
# Takes the decoded values of a field, and puts them into their columns as these hold them.
_Take = Callable[[Sequence[Any], list[Sequence[Any]]], None]

NULL: Final = "\\N"
INT64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
_STRINGS = Tokens.STRING | Tokens.DATE | Tokens.INSTANT
_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
# A struct's field cannot be called just anything. The mark is itself replaced, so that no two names become one.
_MARK = "\U000f0000"
_UNSPEAKABLE = re.compile(rf'["\\\x00-\x1f{_MARK}]')
_EMPTY = re.compile(rb"\{\s*\}")
_plain = msgspec.json.Decoder(float_hook=Num).decode


class Misfit(Exception):
    """A row does not fit the shape that the decoder was made for."""


def escape(text: str) -> str:
    """Return a text as it stands in a line: backslash, tab and line ends escaped as PostgreSQL's COPY has it."""
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], text)


def speakable(name: str) -> str:
    """Return the name that a field goes by in a struct: its own, unless that has characters that a struct refuses."""
    return _UNSPEAKABLE.sub(lambda match: f"{_MARK}{ord(match[0]):x}{_MARK}", name)


class Column(NamedTuple):
    """
    What a column's values are.

    :param type: ``str``, ``int`` or ``bool``.
    :param nullable: whether there can be ``None`` among them.
    :param special: whether their texts may hold characters that a line must escape.
    """

    type: type
    nullable: bool
    special: bool


class Compiled:
    """
    The decoder of a shape's rows.

    ``columns`` tells what the values of each of the shape's columns are, ``respells`` whether rows must have their
    names made speakable before they are decoded, ``dropped`` how many values of ignored fields were read.

    :param shape: as it is now.
    :param json: gives the text of an array or object.
    :param text: gives the text of any plain value.
    """

    def __init__(self, shape: Shape, json: Callable[[bytes], str], text: Callable[[bytes], str | None]) -> None:
        self._shape = shape
        self._json, self._text = json, text
        self.respells = False
        self.dropped: Counter[Field] = Counter()
        self._hollow: list[tuple[Field, int]] = []
        self.columns = [Column(str, nullable=True, special=True)] * len(shape.columns)
        row, self._take = self._object(shape.root, sure=True, empty=True)
        self._decode = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]
        columns = list(enumerate(self.columns))
        self._no_texts = [(place, column.type) for place, column in columns if column.type is not str]
        self._nullable = [place for place, column in columns if column.nullable]
        self._special = [place for place, column in columns if column.special]

    def read(self, rows: list[msgspec.Raw]) -> list[Sequence[Any]]:
        """
        Return the values of rows, column by column.

        :raises Misfit: a row does not fit.
        :raises msgspec.MsgspecError: a row does not fit.
        """
        values: list[Sequence[Any]] = [(None,) * len(rows)] * len(self.columns)
        self._hollow.clear()
        # One call for all rows takes less time than one for each, in spite of the copy.
        self._take(self._decode(b"[%s]" % b",".join(rows)), values)
        if any(_is_empty(rows[place], node) for node, place in self._hollow):
            raise Misfit
        return values

    def texts(self, values: Sequence[Sequence[Any]]) -> list[Sequence[str | None]]:
        """Return the values of columns as the texts of cells."""
        texts = list(values)
        for place, kind in self._no_texts:
            if kind is bool:
                texts[place] = [None if value is None else "true" if value else "false" for value in texts[place]]
            else:
                texts[place] = [None if value is None else f"{value}" for value in texts[place]]
        return texts

    def spelled(self, texts: Sequence[Sequence[str | None]], *, escaped: bool) -> list[Sequence[str]]:
        """
        Return the texts of columns as they stand in lines.

        :param escaped: whether to look for characters that must be escaped.
        """
        spelled: list[Any] = list(texts)
        if escaped:
            for place in self._special:
                spelled[place] = [
                    text if text is None or ("\\" not in text and text.isprintable()) else escape(text)
                    for text in spelled[place]
                ]
        for place in self._nullable:
            spelled[place] = [NULL if text is None else text for text in spelled[place]]
        return spelled

    def _object(self, node: Field, *, sure: bool, empty: bool = False) -> tuple[type[msgspec.Struct], _Take]:
        """
        Return the struct of an object, and what takes such structs.

        :param sure: whether every row has the object. A field that its object never lacks is null where that is
            missing.
        :param empty: whether the object may be empty. If not, an empty one is a value of its own, so a misfit.
        """
        fields: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        takes: list[_Take | None] = []
        for index, (name, child) in enumerate(node.children.items()):
            attribute = f"f{index}"
            rename[attribute] = speakable(name)
            self.respells |= rename[attribute] != name
            annotation, take = self._field(child, sure=sure and child.always)
            takes.append(take)
            is_number = child.kind is Kind.NUMBER and not child.children
            if annotation is None or (annotation is msgspec.Raw and not (is_number and child.always)):
                fields.append((attribute, annotation, None))
            elif child.always:
                fields.append((attribute, annotation, msgspec.NODEFAULT))
            else:
                fields.append((attribute, annotation | None, None))
        struct = msgspec.defstruct("Row", fields, rename=rename, forbid_unknown_fields=True, kw_only=True, gc=False)
        missing = (None,) * len(fields)
        astuple = msgspec.structs.astuple
        # The struct refuses an empty object by itself if there is a field that it must have.
        empty = empty or any(default is msgspec.NODEFAULT for _, _, default in fields)

        def take_objects(objects: Sequence[Any], columns: list[Sequence[Any]]) -> None:
            rows = map(astuple, objects) if sure else [missing if o is None else astuple(o) for o in objects]
            if not empty and missing in (rows := list(rows)):
                hollow = (place for place, row in enumerate(rows) if row == missing and row is not missing)
                self._hollow += [(node, place) for place in hollow]
            for take, values in zip(takes, zip(*rows, strict=True), strict=True):
                if take is not None:
                    take(values, columns)

        return struct, take_objects

    def _field(self, child: Field, *, sure: bool) -> tuple[Any, _Take | None]:
        """Return the type as which a field is decoded, and what takes its values if they are wanted."""
        # A table may have columns of fields that were flattened once, and are now parts of a JSON value.
        flattens = bool(child.children) and self._shape.flattens(child.path)
        if child.ignored and not flattens:
            return msgspec.Raw, self._drop(child, lambda raws: _joined(b"\0", raws).split(b"\0").count(b"null"))
        if flattens and child.tokens:
            return msgspec.Raw, self._object_or_leaf(child)
        if flattens:
            return self._object(child, sure=sure)
        return self._leaf(child, nullable=not sure) if child.tokens else (None, None)

    def _object_or_leaf(self, child: Field) -> _Take:
        struct, take_objects = self._object(child, sure=False, empty=True)
        if child.position is None:
            take_leaf = self._drop(child, lambda texts: texts.count(None))
        else:
            take_leaf = self._column(child, Column(str, nullable=True, special=True))
        decode, plain = msgspec.json.Decoder(struct).decode, self._plain_text(child)

        def split(raw: msgspec.Raw | None) -> tuple[Any, str | None]:
            source = b"null" if raw is None else bytes(raw)
            if source[:1] == b"{" and source[1:-1].strip():
                return decode(source), None
            return None, plain(source)

        def take(values: Sequence[Any], columns: list[Sequence[Any]]) -> None:
            objects, texts = zip(*map(split, values), strict=True)
            take_objects(objects, columns)
            take_leaf(texts, columns)

        return take

    def _drop(self, child: Field, nulls: Callable[[Sequence[Any]], int]) -> _Take:
        """Return what counts the values of a field that has no column."""

        def take(values: Sequence[Any], _: list[Sequence[Any]]) -> None:
            self.dropped[child] += len(values) - nulls(values)

        return take

    def _plain_text(self, child: Field) -> Callable[[bytes], str | None]:
        """Return a function that gives the text of a value, if it is of a kind seen before."""
        text, any_kind, tokens = self._text, child.kind is Kind.TEXT, child.tokens

        def plain(source: bytes) -> str | None:
            if not any_kind and source != b"null" and tokens_of(_plain(source)) & ~tokens:
                raise Misfit
            return text(source)

        return plain

    def _leaf(self, child: Field, *, nullable: bool) -> tuple[Any, _Take]:
        tokens, kind = child.tokens, child.kind
        if not tokens & ~_STRINGS:
            column = Column(str, nullable, special=kind is Kind.TEXT)
            return str, self._column(child, column, None if kind is Kind.TEXT else _existing(kind))
        if tokens == Tokens.BOOL:
            return bool, self._column(child, Column(bool, nullable, special=False))
        if tokens == Tokens.INT:
            return INT64, self._column(child, Column(int, nullable, special=False))
        if kind is Kind.NUMBER:
            return msgspec.Raw, self._column(child, Column(str, nullable, special=False), _numbers(nullable=nullable))
        column = Column(str, nullable=True, special=True)
        return msgspec.Raw, self._column(child, column, self._raw_texts(child))

    def _column(
        self, child: Field, column: Column, change: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    ) -> _Take:
        """
        Note what a column's values are, and return what puts them there.

        :param change: makes them of what was decoded.
        """
        position = child.position
        assert position is not None
        self.columns[position] = column

        def take(values: Sequence[Any], columns: list[Sequence[Any]]) -> None:
            columns[position] = values if change is None else change(values)

        return take

    def _raw_texts(self, child: Field) -> Callable[[Sequence[Any]], Sequence[str | None]]:
        """Return a function that gives the texts of JSON values, or of several kinds of value."""
        is_key = child.path in self._shape.key
        flattens = self._shape.flattens(child.path)
        only_json, tokens = child.kind is Kind.JSON, child.tokens
        json, text = self._json, self._text

        def text_of(source: bytes) -> str | None:
            first = source[:1]
            if first == b"[" or (first == b"{" and not (flattens and source[1:-1].strip())):
                # Both are JSON, but only arrays may have a table of their own.
                if is_key or (only_json and not tokens & (Tokens.ARRAY if first == b"[" else Tokens.JSON)):
                    raise Misfit
                return json(source)
            if first == b"{" or (source == b"null" if is_key else only_json and source != b"null"):
                raise Misfit
            return text(source)

        # No JSON holds a zero byte.
        return lambda raws: list(map(text_of, _joined(b"\0", raws).split(b"\0")))


def _is_empty(row: msgspec.Raw, node: Field) -> bool:
    """Tell whether an object, which has no values, has no fields either."""
    if _EMPTY.search(row) is None:
        return False
    value = _plain(row)
    for name in node.path:
        value = value[speakable(name)]
    return not value


def _existing(kind: Kind | None) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Return a function that refuses dates or instants which do not exist."""
    assert kind is not None

    def check(texts: Sequence[str | None]) -> Sequence[str | None]:
        if not all_are(kind, [text for text in texts if text is not None]):
            raise Misfit
        return texts

    return check


def _numbers(*, nullable: bool) -> Callable[[Sequence[Any]], Sequence[str | None]]:
    """Return a function that gives the texts of numbers: their bytes, so that nothing is lost."""

    def texts_of(raws: Sequence[Any]) -> Sequence[str | None]:
        joined = _joined(b"\n", raws) if nullable else b"\n".join(raws)
        # The tokens are valid JSON: one that has no other characters is a number.
        if (joined.replace(b"null", b"") if nullable else joined).translate(None, b"0123456789.+-eE\n"):
            raise Misfit
        texts = joined.decode().split("\n")
        return [None if text == "null" else text for text in texts] if nullable else texts

    return texts_of


def _joined(separator: bytes, raws: Sequence[msgspec.Raw | None]) -> bytes:
    """Return the sources of values: to join and split them takes less time than to turn each into bytes."""
    return separator.join([b"null" if raw is None else raw for raw in raws])
