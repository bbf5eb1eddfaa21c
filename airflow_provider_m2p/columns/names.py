"""Column names: snake_case of the API's names, nested names joined by ``__``, always unique and never too long."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

Path = tuple[str, ...]

META_PREFIX: Final = "_m2p_"
#: Names that no column can have, because in some database every table has a column of that name already.
SYSTEM_COLUMNS: Final = ("ctid", "cmin", "cmax", "rowid", "tableoid", "xmin", "xmax")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])")
_NOT_A_WORD = re.compile(r"(?:[^\w]|[\U00010000-\U0010ffff])+")  # MySQL's names end at U+FFFF


def snake(name: str) -> str:
    """Return an API name in snake_case: ``productId`` as ``product_id``, ``codeISO`` as ``code_iso``."""
    words = _NOT_A_WORD.sub("_", _HUMP.sub("_", unicodedata.normalize("NFC", name))).lower()
    words = re.sub(r"_{2,}", "_", words).strip("_")
    if not words:
        return "_"
    return f"_{words}" if words[0].isdigit() else words


def join(path: Path) -> str:
    """Return the name that a path would like to have."""
    return "__".join(snake(part) for part in path)


def show(path: Path) -> str:
    """Return a path as the API's documentation would write it, safe to print."""
    return ".".join(part if part.isprintable() and part else repr(part) for part in path)[:200]


def cut(name: str, path: Path, limit: int) -> str:
    """Return a name as it is if it is short enough, else its beginning and a mark made from the path."""
    return name if len(name.encode()) <= limit else _marked(name, path, limit)


def _marked(name: str, path: Path, limit: int) -> str:
    mark = hashlib.sha256(json.dumps(path).encode()).hexdigest()[:8]
    return f"{name.encode()[: limit - 9].decode(errors='ignore')}_{mark}"


def assign(paths: Iterable[Path], taken: Mapping[str, Path], limit: int) -> dict[Path, str]:
    """
    Give each new path a name of its own.

    The outcome depends on the set of paths, not on their order. Of several paths that would like the same name the
    first in alphabetical order gets it; the others, and every name that had to be cut, end in a mark made from the
    path.

    :param paths: the paths without a column.
    :param taken: the names that exist already, with their paths; these are never given away.
    :param limit: the longest name the database allows, in bytes.
    """
    used = {name.casefold() for name in taken}
    names: dict[Path, str] = {}
    for path in sorted(set(paths)):
        name, mark = join(path), path
        while len(name.encode()) > limit or name.casefold() in used or name.startswith(META_PREFIX):
            name = _marked(join(path), mark, limit)
            mark = (*mark, "")  # another mark, should a field be named like the first one
        used.add(name.casefold())
        names[path] = name
    return names
