"""Made-up corporate issuances: a second list, paged the vendor's other way, without ``list`` and ``totalPages``."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from random import Random

from airflow_provider_m2p.sandbox.catalogue import encode
from airflow_provider_m2p.sandbox.products import EPOCH, TYPES, instant, product_id

STATUSES = ("CREATED", "PENDING_APPROVAL", "APPROVED", "REJECTED", "SUCCESS", "FAILED")


def issuance_rows(seed: int, tenant: str, size: int, status: str) -> list[bytes]:
    """
    A tenant's issuances of one status, as JSON.

    :param size: how many there are of every status together.
    """
    rows = []
    for number in range(size):
        rng = Random(f"{seed}/{tenant}/issuance/{number}")
        if rng.choice(STATUSES) != status:
            continue
        created = EPOCH + timedelta(seconds=rng.randrange(50_000_000))
        issuance = {
            "id": f"{rng.getrandbits(96):024x}",
            "applicationNumber": f"APP{number:08d}",
            "currentStatus": status,
            "corporate": {"corporateId": f"CORP{rng.randrange(20):03d}", "branch": rng.choice(("Pune", "चेन्नई", None))},
            "product": {"productId": product_id(seed, tenant, number), "productType": TYPES[number % len(TYPES)]},
            "noOfCards": rng.randrange(1, 500),
            "loadAmount": f"{rng.randrange(100_000)}.00",
            "totalFee": Decimal(rng.randrange(1_000_000)).scaleb(-2),
            "remarks": [] if rng.random() < 0.7 else ["काग़ज़ बाकी"],
            "createdAt": instant(created, millis=bool(number % 2)),
        }
        rows.append(encode(issuance))
    return rows
