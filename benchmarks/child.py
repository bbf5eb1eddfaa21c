"""A contestant's process: ``python -m benchmarks.child JOB REPORT`` imports it, starts the clock, runs it, reports."""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path

from benchmarks.contestants import CONTESTANTS
from benchmarks.job import Job


def _cpu() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def _peak_mb() -> float:
    """
    Return this process's own peak. ``ru_maxrss`` would do only if exec did not carry the parent's peak into it.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        scale = 1024 * 1024 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    module, _, function = CONTESTANTS[job.contestant].function.partition(".")
    run = getattr(importlib.import_module(f"benchmarks.contestants.{module}"), function)
    cpu, started = _cpu(), time.perf_counter()
    said = run(job)
    report = {
        "seconds": time.perf_counter() - started,
        "cpu": _cpu() - cpu,
        "peak_mb": _peak_mb(),
        "said": said,
    }
    Path(sys.argv[2]).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
