"""Elements of arrays as rows of their own, which know their parent's key and their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from airflow_provider_m2p.columns.compiled import Cells
from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.columns.names import Path

PARENT: Final = "_m2p_parent"
POSITION: Final = "_m2p_position"

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_BARE: Final = (Kind.INT, Kind.NUMBER, Kind.BOOL)


def parent_json(paths: Sequence[Path], kinds: list[Kind], cells: Cells) -> bytes:
    """
    Return a parent's key as it stands in each of its elements.

    :param paths: paths of the key fields.
    :param kinds: the kinds of their columns.
    :param cells: their cells.
    """
    key: dict[str, Any] = {}
    for path, kind, cell in zip(paths, kinds, cells, strict=True):
        node = key
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = msgspec.Raw((cell or "").encode() if kind in _BARE else _encode(cell))
    return b'"%s":%s' % (PARENT.encode(), _encode(key))


def element_rows(array: str, parent: bytes) -> Iterator[msgspec.Raw]:
    """
    Yield each element of an array as a row: an object as it is, any other value as the field ``value``.

    :param array: the array's JSON text.
    :param parent: from :func:`parent_json`.
    """
    for position, element in enumerate(_elements(array)):
        source = bytes(element)
        # What is added stands last, so that no field of the platform's can take its place.
        added = b'%s,"%s":%d}' % (parent, POSITION.encode(), position)
        if source[:1] != b"{":
            yield msgspec.Raw(b'{"value":' + source + b"," + added)
        elif source[1:-1].strip():
            yield msgspec.Raw(source[:-1] + b"," + added)
        else:
            yield msgspec.Raw(b"{" + added)
