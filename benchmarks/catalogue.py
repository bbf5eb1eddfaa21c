"""
The catalogue every contestant loads: any number of products, made from templates, with known answers.

Product ``n`` is template ``n % TEMPLATES`` with an id of its own, so that a page of a million products costs the data
server microseconds. ``changed`` serves the same list with one product in a thousand changed, spread at random.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import lru_cache

TEMPLATES = 2_000
PAGE_SIZE = 500
CHANGED_SHARE = 1_000
ID_DIGITS = 9

# Two factors coprime to everything here: a swapped or repeated row changes the checksum.
_WEIGHTS = 97


@dataclass(frozen=True)
class Answer:
    """What a database holds after a correct load."""

    rows: int
    distinct: int
    checksum: int


def _money(rng: random.Random, high: int) -> str:
    return f"{rng.randrange(1, high)}.{rng.randrange(100):02d}"


def _template(number: int, version: int) -> tuple[bytes, int]:
    """Return a product's bytes after its id, and its daily limit in hundredths."""
    rng = random.Random(number)
    kind = rng.choice(["GPR", "GIFT", "FOREX", "WALLET", "CREDIT", "GPRNCMC"])
    network = rng.choice(["VISA", "MASTERCARD", "RUPAY"])
    cents = rng.randrange(100_000, 5_000_000) + version * 100
    created = f"202{rng.randrange(6)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"
    # Written by hand where it is a number: a money amount keeps its two decimals, as the platform writes it.
    fields: list[tuple[str, str]] = [
        ("productCode", json.dumps(f"{kind}_RETAIL_{number:05d}")),
        ("productName", json.dumps(f"{kind.title()} prepaid card no. {number}")),
        ("productType", json.dumps(kind)),
        (
            "description",
            json.dumps(
                f"{network} programme {number} for retail and payroll customers, sold in branch and online, "
                "with contactless payments"
            ),
        ),
        ("status", json.dumps(rng.choice(["ACTIVE", "INACTIVE", "PENDING_APPROVAL"]))),
        ("cardNetwork", json.dumps(network)),
        ("currency", json.dumps("INR")),
        ("countryCode", "356"),
        ("issuerName", json.dumps(f"Bank of Example {number % 40}")),
        ("corporateId", json.dumps(f"{rng.getrandbits(96):024x}")),
        ("binNumber", json.dumps(f"{rng.randrange(400_000, 600_000)}")),
        ("plasticType", json.dumps(rng.choice(["STANDARD", "PREMIUM"]))),
        ("kycType", json.dumps(rng.choice(["FULL_KYC", "MIN_KYC", "NO_KYC"]))),
        ("allowUpi", rng.choice(["true", "false"])),
        ("reloadable", rng.choice(["true", "false"])),
        ("validityMonths", str(rng.randrange(12, 61))),
        ("version", str(version + 1)),
        ("issuanceFee", _money(rng, 500)),
        ("tags", json.dumps(["prepaid", kind.lower(), f"programme-{number % 40}", rng.choice(["retail", "payroll"])])),
        ("createdAt", json.dumps(f"{created}T06:53:54Z")),
        ("updatedAt", json.dumps(f"2026-0{version + 1}-15T10:30:00.{number % 1000:03d}Z")),
        (
            "limits",
            f'{{"perTransaction":{_money(rng, 9_000)},"daily":{cents / 100:.2f},"monthly":{_money(rng, 900_000)},'
            f'"yearly":{_money(rng, 9_000_000)},"dailyCount":{rng.randrange(1, 50)},'
            f'"atm":{{"daily":{_money(rng, 50_000)},"dailyCount":{rng.randrange(1, 10)}}}}}',
        ),
        (
            "fees",
            f'{{"loadFee":{_money(rng, 100)},"atmFee":{_money(rng, 50)},"replacementFee":{_money(rng, 300)},'
            f'"taxPercent":18.00,"currency":"INR"}}',
        ),
        (
            "attributes",
            f'{{"segment":"{rng.choice(["RETAIL", "PAYROLL", "STUDENT"])}","channel":"{rng.choice(["APP", "BRANCH"])}",'
            f'"design":"D{number % 100:03d}","contactless":true,"region":null,'
            f'"owner":"cards-{number % 7}@bank.example"}}',
        ),
    ]
    return ("," + ",".join(f'"{name}":{value}' for name, value in fields) + "}").encode(), cents


@lru_cache(maxsize=2)
def _templates(version: int) -> tuple[list[bytes], list[int]]:
    made = [_template(number, version) for number in range(TEMPLATES)]
    return [tail for tail, _ in made], [cents for _, cents in made]


@lru_cache(maxsize=8)
def _changed(rows: int) -> frozenset[int]:
    return frozenset(random.Random(rows).sample(range(rows), rows // CHANGED_SHARE))


@lru_cache(maxsize=600)
def page(rows: int, changed: bool, number: int, size: int) -> bytes:
    """Return page ``number`` of a catalogue of ``rows`` products, in the platform's envelope."""
    first, last = number * size, min((number + 1) * size, rows)
    old, _ = _templates(0)
    new, _ = _templates(1)
    moved = _changed(rows) if changed else frozenset()
    result = b",".join(
        b'{"productId":"P%09d"%b' % (n, (new if n in moved else old)[n % TEMPLATES]) for n in range(first, last)
    )
    pages = -(-rows // size)
    return (
        b'{"result":[%b],"pagination":{"list":true,"pageSize":%d,"pageNo":%d,"totalPages":%d,"totalElements":%d}}'
        % (
            result,
            size,
            number,
            pages,
            rows,
        )
    )


@lru_cache(maxsize=16)
def answer(rows: int, changed: bool) -> Answer:
    """Return what a database must hold after loading that catalogue."""
    _, old = _templates(0)
    _, new = _templates(1)
    moved = _changed(rows) if changed else frozenset()
    checksum = sum((new if n in moved else old)[n % TEMPLATES] * (n % _WEIGHTS + 1) for n in range(rows))
    return Answer(rows, rows, checksum)


def daily_sum(rows: int) -> float:
    """Return the sum of ``limits.daily``."""
    _, cents = _templates(0)
    return sum(cents[n % TEMPLATES] for n in range(rows)) / 100


def check_sql(table: str, product_id: str, daily: str, *, integer: str, where: str = "true") -> str:
    """
    Return the query whose single row is an ``Answer``.

    :param product_id: the contestant's expression for the product's id.
    :param daily: its expression for ``limits.daily``, as a number.
    :param integer: the database's type for 64-bit integers.
    """
    number = f"cast(substr({product_id}, 2) as {integer})"
    cents = f"cast(round({daily} * 100) as {integer})"
    checksum = f"sum({cents} * ({number} % {_WEIGHTS} + 1))"
    return f"select count(*), count(distinct {product_id}), {checksum} from {table} where {where}"
