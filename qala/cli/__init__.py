"""The command line. Data goes to stdout, progress and logs to stderr; exit codes are 0, 1 (failed) and 2 (wrong usage).

Every heavy import is inside the command that needs it, so that `qala --help` is quick.
"""

from __future__ import annotations

from qala.cli.shell import app, main

__all__ = ["app", "main"]
