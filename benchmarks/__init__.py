"""
Side by side with the tools one would use instead: ``python -m benchmarks`` (see ``__main__`` for its options).

A data server in a process of its own serves the same catalogue to every contestant; each contestant is a fresh process
that loads it into a fresh database, which is then counted and checksummed. Contestants take turns, so that a busy
moment of the machine hits them alike; only ratios of medians are worth quoting, and CPU seconds where it is busy.

``make bench`` runs it in ``.venv``; the peers are installed into ``.venv-bench`` on first use (``requirements.txt``).
A peer that cannot be installed or fails is named in the report with its error.
"""
