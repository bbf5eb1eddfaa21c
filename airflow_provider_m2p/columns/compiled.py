"""
Code for one state of a shape: a decoder and the functions that write its rows.

For a row with a name, a number and a nested object the compiled function reads, in essence::

    for v in rows:
        v_2 = v.f2
        if v_2 is None: v_2 = Emptyv_2
        out.append(Join((v.f0, x if (x := v.f1) is not None else Null, v_2.f0)))

The source holds only names made here. Names and values of the API never enter it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby
from typing import Annotated, Any, Final

import msgspec

from airflow_provider_m2p.columns.kinds import INT64_MAX, INT64_MIN, Kind, Num, Tokens, all_are, tokens_of
from airflow_provider_m2p.columns.shape import Field, Shape

Cells = tuple[str | None, ...]

NULL: Final = "\\N"
_INT64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
_STRINGS = Tokens.STRING | Tokens.DATE | Tokens.INSTANT
_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
# A struct's field cannot be called just anything. The mark is itself replaced, so that no two names become one.
_MARK = "\U000f0000"
_UNSPEAKABLE = re.compile(rf'["\\\x00-\x1f{_MARK}]')


class Misfit(Exception):
    """A row does not fit the shape that the code was compiled for."""


def escape(text: str) -> str:
    """Return a text as it stands in a line: backslash, tab and line ends escaped as PostgreSQL's COPY has it."""
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], text)


def speakable(name: str) -> str:
    """Return the name that a field goes by in a struct: its own, unless that has characters that a struct refuses."""
    return _UNSPEAKABLE.sub(lambda match: f"{_MARK}{ord(match[0]):x}{_MARK}", name)


class Compiled:
    """
    The decoder of a shape's rows, and three functions over what it decodes.

    ``respells`` tells whether rows must have their names made speakable before they are decoded.

    :param shape: as it is now.
    :param json: gives the text of an array or object.
    :param text: gives the text of any plain value.
    """

    def __init__(self, shape: Shape, json: Callable[[bytes], str], text: Callable[[bytes], str | None]) -> None:
        self._shape = shape
        self._json, self._text = json, text
        self._names: dict[str, Any] = {
            "Join": b"\t".join,
            "JoinTexts": "\t".join,
            "Null": NULL,
            "NullBytes": NULL.encode(),
            "Escape": escape,
            "Misfit": Misfit,
            "All": all_are,
            "Number": _number,
        }
        self._prologue: list[str] = []
        self._cell: dict[int, _Cell] = {}
        self._numbers: list[str] = []
        self.respells = False
        self._temporal: list[tuple[str, Kind]] = []
        row = self._struct(shape.root, "v", sure=True)
        self._decode = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]
        cells = [self._cell[id(column)] for column in shape.columns]
        self.lines: Callable[[list[Any]], list[bytes]] = self._line_writer(cells, escaped=False)
        self.escaped_lines: Callable[[list[Any]], list[bytes]] = self._line_writer(cells, escaped=True)
        self.cells: Callable[[list[Any]], list[Cells]] = self._writer(_tuple([c.cell() for c in cells]))

    def decode(self, rows: list[msgspec.Raw]) -> list[Any]:
        """
        Decode rows to the objects that the other functions take. They raise ``Misfit`` where a row does not fit.

        :raises msgspec.MsgspecError: a row does not fit.
        """
        # One call for all rows takes less time than one for each, in spite of the copy.
        objects: list[Any] = self._decode(b"[%s]" % b",".join(rows))
        return objects

    def _struct(self, node: Field, variable: str, *, sure: bool) -> type[msgspec.Struct]:
        """
        Return the struct of an object; the code that reads it goes to the prologue and the cells.

        :param sure: whether every row has the object. A field that its object never lacks is null where that is
            missing.
        """
        fields: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        for index, (name, child) in enumerate(node.children.items()):
            attribute = f"f{index}"
            rename[attribute] = speakable(name)
            self.respells |= rename[attribute] != name
            annotation = self._annotation(
                child, f"{variable}.{attribute}", f"{variable}_{index}", sure and child.always
            )
            is_number = child.kind is Kind.NUMBER and not child.children
            if annotation is None or (annotation is msgspec.Raw and not (is_number and child.always)):
                fields.append((attribute, annotation, None))
            elif child.always:
                fields.append((attribute, annotation, msgspec.NODEFAULT))
            else:
                fields.append((attribute, annotation | None, None))
        return msgspec.defstruct(
            f"Row_{variable}", fields, rename=rename, forbid_unknown_fields=True, kw_only=True, gc=False
        )

    def _annotation(self, child: Field, expression: str, variable: str, sure: bool) -> Any:
        if child.ignored and not child.children:
            return msgspec.Raw
        if child.children and child.tokens:
            return self._branch_or_leaf(child, expression, variable)
        if child.children:
            return self._branch(child, expression, variable, sure)
        return self._leaf(child, expression, variable, sure) if child.tokens else None

    def _branch(self, child: Field, expression: str, variable: str, sure: bool) -> Any:
        self._prologue.append(f"{variable} = {expression}")
        if not sure:
            self._prologue.append(f"if {variable} is None: {variable} = Empty{variable}")
        struct = self._struct(child, variable, sure=sure)
        self._names[f"Empty{variable}"] = _empty(struct)
        return struct

    def _branch_or_leaf(self, child: Field, expression: str, variable: str) -> Any:
        self._prologue.append(f"{variable}, {variable}_leaf = Split{variable}({expression})")
        self._cell[id(child)] = _Cell(f"{variable}_leaf", maybe_null=True, special=True)
        struct = self._struct(child, variable, sure=False)
        decode, empty = msgspec.json.Decoder(struct).decode, _empty(struct)
        plain = self._plain_text(child)

        def split(raw: msgspec.Raw | None) -> tuple[Any, str | None]:
            if raw is None:
                return empty, None
            source = bytes(raw)
            if source[:1] == b"{" and source[1:-1].strip():
                return decode(source), None
            return empty, plain(source)

        self._names[f"Split{variable}"] = split
        return msgspec.Raw

    def _plain_text(self, child: Field) -> Callable[[bytes], str | None]:
        """Return a function that gives the text of a value, if it is of a kind seen before."""
        text, any_kind, tokens = self._text, child.kind is Kind.TEXT, child.tokens
        decode = msgspec.json.Decoder(float_hook=Num).decode

        def plain(source: bytes) -> str | None:
            if not any_kind and source != b"null" and tokens_of(decode(source)) & ~tokens:
                raise Misfit
            return text(source)

        return plain

    def _leaf(self, child: Field, expression: str, variable: str, sure: bool) -> Any:
        tokens, kind = child.tokens, child.kind
        maybe_null = not sure
        if not tokens & ~_STRINGS:
            if kind is not Kind.TEXT and kind is not None:
                self._temporal.append((expression, kind))
            self._cell[id(child)] = _Cell(expression, maybe_null, special=kind is Kind.TEXT)
            return str
        if tokens == Tokens.BOOL:
            self._cell[id(child)] = _Cell(expression, maybe_null, "('true' if {} else 'false')")
            return bool
        if tokens == Tokens.INT:
            self._cell[id(child)] = _Cell(expression, maybe_null, "str({})")
            return _INT64
        if kind is Kind.NUMBER:
            # The bytes of a number are its text: nothing is lost, and nothing takes less time.
            if child.nulls:
                expression, maybe_null = f"Number({expression})", True
            self._numbers.append(f"(b'' if (x := {expression}) is None else x)" if maybe_null else expression)
            self._cell[id(child)] = _Cell(expression, maybe_null, "str({}, 'ascii')", is_bytes=True)
            return msgspec.Raw
        self._names[f"Leaf{variable}"] = self._raw_leaf(child)
        self._cell[id(child)] = _Cell(f"Leaf{variable}({expression})", True, special=True)
        return msgspec.Raw

    def _raw_leaf(self, child: Field) -> Callable[[msgspec.Raw | None], str | None]:
        """Read a field of JSON values, or of several kinds of value."""
        is_key = child.path in self._shape.key
        flattens = len(child.path) <= self._shape.max_depth
        only_json = child.kind is Kind.JSON
        json, text = self._json, self._text

        def leaf(raw: msgspec.Raw | None) -> str | None:
            source = b"null" if raw is None else bytes(raw)
            first = source[:1]
            if first == b"[" or (first == b"{" and not (flattens and source[1:-1].strip())):
                if is_key:
                    raise Misfit
                return json(source)
            if first == b"{" or (source == b"null" if is_key else only_json and source != b"null"):
                raise Misfit
            return text(source)

        return leaf

    def _line_writer(self, cells: list[_Cell], *, escaped: bool) -> Any:
        # Texts that stand side by side are joined before they become bytes: one encoding instead of many.
        parts = []
        for is_bytes, group in groupby(cells, key=lambda cell: cell.is_bytes):
            sources = _tuple([cell.line(escaped=escaped) for cell in group])
            parts.append(f"Join({sources})" if is_bytes else f"JoinTexts({sources}).encode()")
        return self._writer(f"Join({_tuple(parts)})")

    def _writer(self, row: str) -> Any:
        """Return a function that writes rows, and checks on the way what the decoder cannot."""
        begin, each, end = ["out = []"], [*self._prologue, f"out.append({row})"], ["return out"]
        if self._numbers:
            begin.append("numbers = []")
            each.append(f"numbers += ({', '.join(self._numbers)},)")
            # The tokens are valid JSON: one that has no other characters is a number.
            end.insert(0, "if b''.join(numbers).translate(None, b'0123456789.+-eE'): raise Misfit")
        for index, (expression, kind) in enumerate(self._temporal):
            self._names[f"Kind{index}"] = kind
            begin.append(f"t{index} = []")
            each.append(f"t{index}.append({expression})")
            # Dates and instants must exist.
            end.insert(0, f"if not All(Kind{index}, [t for t in t{index} if t is not None]): raise Misfit")
        lines = [*begin, "for v in rows:", *(f" {line}" for line in each), *end]
        scope = dict(self._names)
        exec("\n ".join(["def function(rows):", *lines]), scope)  # noqa: S102
        return scope["function"]


class _Cell:
    """
    The source of the expressions that yield a column's text.

    :param expression: yields the value.
    :param maybe_null: whether it can yield ``None``.
    :param text: turns a value ``{}`` into text.
    :param is_bytes: whether the value is bytes, which go into lines as they are.
    :param special: whether the text may hold characters that a line must escape.
    """

    def __init__(
        self, expression: str, maybe_null: bool, text: str = "{}", *, is_bytes: bool = False, special: bool = False
    ) -> None:
        self._expression, self._maybe_null, self._text, self._special = expression, maybe_null, text, special
        self.is_bytes = is_bytes

    def line(self, *, escaped: bool) -> str:
        if escaped and self._special:
            other = "x if '\\\\' not in x and x.isprintable() else Escape(x)"
            return f"(Null if (x := {self._expression}) is None else {other})"
        return self._source("{}", "NullBytes") if self.is_bytes else self._source(self._text, "Null")

    def cell(self) -> str:
        return self._source(self._text, "None")

    def _source(self, text: str, null: str) -> str:
        if self._maybe_null:
            return f"({text.format('x')} if (x := {self._expression}) is not None else {null})"
        return text.format(self._expression)


def _tuple(sources: list[str]) -> str:
    return f"({', '.join(sources)}{',' if sources else ''})"


def _number(raw: msgspec.Raw | None) -> msgspec.Raw | None:
    return None if raw is None or bytes(raw) == b"null" else raw


def _empty(struct: type[msgspec.Struct]) -> msgspec.Struct:
    return struct(**dict.fromkeys(struct.__struct_fields__))
