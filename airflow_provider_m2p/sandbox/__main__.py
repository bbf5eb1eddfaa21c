"""``m2p-sandbox``: serve the sandbox until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from airflow_provider_m2p.sandbox import faults
from airflow_provider_m2p.sandbox.server import SandboxServer


def parser() -> argparse.ArgumentParser:
    """The command line; its options are the fields of ``Settings``."""
    args = argparse.ArgumentParser(
        prog="m2p-sandbox",
        description="A local stand-in for the M2P Prepaid Platform. Prints its URL when it is ready.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"{faults.__doc__}\nNAME is one of\n\n{faults.listing()}\n",
    )
    args.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    args.add_argument("--port", type=int, default=8099, help="port, 0 for a free one (default %(default)s)")
    args.add_argument(
        "--products", type=int, default=250, metavar="N", help="products per tenant (default %(default)s)"
    )
    args.add_argument("--page-size-max", type=int, default=500, metavar="N", help="largest page (default %(default)s)")
    args.add_argument(
        "--token-ttl", type=int, default=3600, metavar="S", help="lifetime of tokens (default %(default)s)"
    )
    args.add_argument("--rate-limit", metavar="N/min", help="requests per caller, N/min or N/s (default: no limit)")
    args.add_argument("--latency-ms", type=int, default=0, metavar="N", help="added to every answer")
    args.add_argument("--allow-ip", action="append", default=[], metavar="CIDR", help="who may call (default: all)")
    args.add_argument("--trust-proxy", action="append", default=[], metavar="CIDR", help="whose X-Forwarded-For counts")
    args.add_argument("--fault", action="append", default=[], metavar="SPEC", dest="faults", help="see below")
    args.add_argument("--seed", type=int, default=1, metavar="N", help="other products (default %(default)s)")
    args.add_argument(
        "--extra-tenants", type=int, default=0, metavar="N", help="TENANT_001 ... with three clients each"
    )
    args.add_argument("--state", metavar="FILE", help="SQLite file that outlives the sandbox (default: memory)")
    args.add_argument("--tls", choices=("private-ca", "expired"), help="serve HTTPS under a certificate made now")
    args.add_argument("--tls-ca", metavar="FILE", help="where to write the certificate of the CA that --tls makes")
    args.add_argument("--tls-cert", metavar="FILE", help="serve HTTPS under this certificate (PEM, with its chain)")
    args.add_argument("--tls-key", metavar="FILE", help="and its key (PEM)")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    :param argv: arguments, without the program's name.
    """
    options = vars(parser().parse_args(argv))
    options["tenants"] = tuple(f"TENANT_{n:03d}" for n in range(1, options.pop("extra_tenants") + 1))
    for name in ("allow_ip", "trust_proxy", "faults"):
        options[name] = tuple(options[name])
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        box = SandboxServer(**options)
        box.start()
    except (ValueError, OSError) as error:
        print(f"m2p-sandbox: {error}", file=sys.stderr)
        return 2
    try:
        print(box.url, flush=True)
        stop.wait()
    finally:
        box.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
