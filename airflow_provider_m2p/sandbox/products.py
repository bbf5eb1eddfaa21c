"""
Made-up products, as awkward as real ones.

The vendor documents no product schema, so these carry every shape its other pages show: money as text and as a number,
instants with and without milliseconds, country codes of three kinds, nulls, empty text, nesting, and fields that only
some products have. The same seed, tenant and number give the same product.
"""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

Product = dict[str, Any]

TYPES = ("GPR", "GIFT", "FOREX", "WALLET", "CREDIT", "AMC", "GPRNCMC")
PLASTIC = {"GPR", "GIFT", "FOREX", "CREDIT", "AMC", "GPRNCMC"}
VIRTUAL = {"GPR", "GIFT", "CREDIT"}
UPI = {"GPR", "WALLET", "GPRNCMC"}
CHANNELS = ("ATM", "POS", "ECOM", "NFC", "UPI", "IMPS", "P2P", "LOAD")
NAMES = (
    "GPR Prepaid Card",
    "Forex Travel Card",
    "Café Crème Überraschung",
    "मुंबई मेट्रो कार्ड",
    "Diwali Gift 🎁",
    "பயண அட்டை",
    'Payroll "Plus", O\'Brien & Søns',
    "Zero\u200dWidth 👩‍👩‍👧 Family",
    "Back\\slash\tTab",
    "رحلة Travel",
)
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
ALPHANUMERIC = string.ascii_letters + string.digits

# The first page of 100 rows shows none of these, so that a table has to learn columns as it goes.
LATE_FIELDS = (("promocodeId", 15), ("ncmc", 110), ("targetProductId", 205))


def product_id(seed: int, tenant: str, number: int) -> str:
    """Ten mixed-case alphanumerics, among them ids that careless software folds, trims or reads as a number."""
    if number >= 10:
        return "".join(Random(f"{seed}/{tenant}/{number}/id").choices(ALPHANUMERIC, k=10))
    rng = Random(f"{seed}/{number}")  # the same at every tenant: a key without the tenant would mix them up
    match number:
        case 3:  # differs from its neighbour in case alone
            return product_id(seed, tenant, 2).swapcase()
        case 5:
            return "00" + "".join(rng.choices(string.digits, k=8))
        case 7:
            return "".join(rng.choices("123456789", k=5)) + "e" + "".join(rng.choices("123456789", k=4))
        case _:
            return "".join(rng.choices(string.ascii_letters, k=10))


def make_product(seed: int, tenant: str, number: int) -> Product:
    """
    Make one product.

    :param seed: the sandbox's seed.
    :param tenant: tenant the product belongs to.
    :param number: its place in the catalogue, from 0.
    """
    rng = Random(f"{seed}/{tenant}/{number}")
    kind = TYPES[number % len(TYPES)]
    created = EPOCH + timedelta(seconds=rng.randrange(50_000_000), milliseconds=rng.randrange(1000))
    daily = rng.randrange(1, 100) * 1000
    bin_number = f"{rng.randrange(400_000, 699_999)}"
    product: Product = {
        "productId": product_id(seed, tenant, number),
        "productName": f"{rng.choice(NAMES)} {number:05d}",
        "productType": kind if number % 9 else kind.title(),
        "description": rng.choice((None, "", "Reloadable, domestic use only.", "नया उत्पाद")),
        "cardNetwork": rng.choice(("VISA", "MASTERCARD", "RUPAY")) if kind in PLASTIC else None,
        "status": "INACTIVE" if rng.random() < 0.1 else "ACTIVE",
        "kycType": rng.choice(("FULL_KYC", "MIN_KYC", "NO_KYC")),
        "physical": kind in PLASTIC,
        "virtual": kind in VIRTUAL,
        "allowUpi": kind in UPI,
        "countryCode": (91, "91", "+91")[number % 3],
        "currency": {"currencyCodeISO": "INR", "currencyCodeNumeric": 356},
        "ledgerNumber": 2**53 + 1 + 2 * number,
        "issuanceFee": rng.choice((Decimal("0.1"), Decimal("8500.00"), Decimal("15250.75"), 0, None)),
        "maxLoadAmount": rng.choice(("8500.00", "200000.00", "0.10", "")),
        "limits": {
            "perTransaction": money(rng, 50_000),
            "daily": f"{daily}.00",
            "monthly": Decimal(daily * 20).quantize(Decimal("0.01")),
            "yearly": daily * 240,
            "byChannel": {
                channel: {"amount": money(rng, 10_000), "count": rng.randrange(1, 30)}
                for channel in rng.sample(CHANNELS, 2)
            },
        },
        "fees": [
            {"feeType": fee, "feeAmount": money(rng, 500), "taxAmount": f"{rng.randrange(9000) / 100:.2f}"}
            for fee in ("LOAD_FEE", "REGISTRATION_FEE")[: rng.randrange(3)]
        ],
        "binRanges": [
            {
                "binNumber": bin_number,
                "rangeStart": f"{bin_number}{n:02d}00",
                "rangeEnd": f"{bin_number}{n:02d}99",
                "totalCards": rng.randrange(100, 10_000),
                "status": "ACTIVE",
                "plasticType": rng.choice(("STANDARD", "PREMIUM")),
            }
            for n in range(rng.randrange(1, 3))
        ],
        "notification": [
            {
                "eventType": "CARD_TXN_SUCCESS",
                "channels": rng.choice((["SMS"], ["SMS", "EMAIL"], [])),
                "thresholdAmount": Decimal("100.00"),
            }
        ],
        "validFrom": f"{created:%Y-%m-%d}",
        "validTo": None if rng.random() < 0.5 else f"{created + timedelta(days=1825):%Y-%m-%d}",
        "createdAt": instant(created, millis=bool(number % 2)),
        "updatedAt": instant(created + timedelta(days=rng.randrange(90)), millis=True),
    }
    if number >= LATE_FIELDS[0][1] and rng.random() < 0.3:
        product["promocodeId"] = f"{rng.getrandbits(96):024x}"
    if number >= LATE_FIELDS[1][1] and kind == "GPRNCMC":
        product["ncmc"] = {
            "serviceArea": rng.choice(("METRO", "BUS")),
            "offlineBalanceMax": Decimal("2000.00"),
        }
    if number >= LATE_FIELDS[2][1] and rng.random() < 0.5:
        product["targetProductId"] = product_id(seed, tenant, 2)
    return product


def amend(product: Product, rng: Random, at: datetime) -> Product:
    """
    A copy of a product as its owner might have changed it, always different.

    :param at: the new ``updatedAt``; it has to differ from the old one.
    """
    changed = {**product, "updatedAt": instant(at, millis=True)}
    match rng.randrange(5):
        case 0:
            changed["productName"] = f"{product['productName']} ({rng.choice(NAMES)})"
        case 1:
            changed["status"] = "INACTIVE" if product.get("status") == "ACTIVE" else "ACTIVE"
        case 2:
            changed["limits"] = {**product.get("limits", {}), "perTransaction": money(rng, 50_000)}
        case 3:
            changed["issuanceFee"] = None if product.get("issuanceFee") is not None else Decimal("0.1")
        case _:
            changed["fees"] = [
                *product.get("fees", []),
                {"feeType": "REISSUE_FEE", "feeAmount": money(rng, 500)},
            ]
    return changed


def money(rng: Random, most: int) -> Decimal:
    """An amount with two decimals, trailing zeros and all."""
    return (
        Decimal(rng.randrange(1, most * 100)).scaleb(-2) if rng.random() < 0.7 else Decimal(f"{rng.randrange(most)}.00")
    )


def instant(at: datetime, *, millis: bool) -> str:
    return at.isoformat(timespec="milliseconds" if millis else "seconds").replace("+00:00", "Z")
