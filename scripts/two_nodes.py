"""Two nodes on one machine: Qala with its lake on 127.0.0.1, a dask scheduler and worker over that lake on 127.0.0.2.

All that node 2 has of node 1 is the lake's folder: no store, no state, no journal. On two machines it is the same with a
shared folder or an object store in the folder's place, and the other machine's address.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

NODE_1, NODE_2 = "127.0.0.1", "127.0.0.2"
DEVICES = "40"
DEADLINE_S = 300.0


def main() -> None:
    """Run both nodes, compute the newest closed day on the second one, and end them."""
    with tempfile.TemporaryDirectory(prefix="qala-") as folder, ExitStack() as running:
        root = Path(folder)
        http, mqtt, dask = (free_port(host) for host in (NODE_1, NODE_1, NODE_2))
        os.environ.update(
            QALA_DATA=str(root / "node1"), QALA_STORE__LAKE=str(root / "lake"), QALA_REHEARSAL__DEVICES=DEVICES
        )
        (root / "node2").mkdir()

        say(f"node 1, {NODE_1}: qala run --rehearse, with its lake in {root / 'lake'}")
        served = ("qala", "run", "--rehearse", "--http", f"{NODE_1}:{http}", "--mqtt", f"{NODE_1}:{mqtt}")
        running.enter_context(process(root / "node1.log", *served))

        say(f"node 2, {NODE_2}: dask scheduler and worker")
        address = f"tcp://{NODE_2}:{dask}"
        plain = ("--host", NODE_2, "--no-dashboard")
        scheduler = ("distributed.cli.dask_scheduler", *plain, "--port", str(dask), "--no-show")
        worker = ("distributed.cli.dask_worker", address, *plain, "--nthreads", "1", "--local-directory", "scratch")
        running.enter_context(process(root / "scheduler.log", *scheduler, cwd=root / "node2"))
        running.enter_context(process(root / "worker.log", *worker, cwd=root / "node2"))

        say("waiting until node 1 has two days of the city, and all their values")
        wait(lambda: has_computed_all(http))

        say("node 1 brings its lake up to date")
        days = qala("lake", "export")
        newest = max(date.fromisoformat(day["day"]) for day in days)
        say(f"node 2 computes {newest} again, and node 1 compares it with what it has")
        when = ("--since", str(newest), "--until", str(newest + timedelta(days=1)))
        [found] = qala("analytics", "backfill", *when, "--scheduler", address)
        print(json.dumps({"days": [day["day"] for day in days], **found}))  # noqa: T201


def has_computed_all(http: int) -> bool:
    """Tell whether the city's past is in and nothing waits."""
    try:
        parts = ask(http, "health")["parts"]
        if parts["projector"]["lag_messages"] or parts["scheduler"]["due"] or parts["scheduler"]["marks"]:
            return False
        new = "indicators/traffic_flow/values?window=1h&start=-2h"
        return len(ask(http, new)["items"]) > 0  # the past comes in the order of time
    except (OSError, KeyError):
        return False


def ask(http: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://{NODE_1}:{http}/api/v1/{path}", timeout=10) as answer:
        return json.load(answer)


def qala(*words: str) -> Any:
    """Type a command at node 1 and return its JSON."""
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-m", "qala", *words, "--json"], stdout=subprocess.PIPE, check=False, timeout=DEADLINE_S
    )
    if done.returncode:
        sys.exit(f"qala {' '.join(words)} failed")
    return json.loads(done.stdout)


@contextmanager
def process(log: Path, *words: str, cwd: Path | None = None) -> Iterator[None]:
    """Run a module until the end of the block; what it says is shown where the block fails."""
    with log.open("wb") as said:
        started = subprocess.Popen([sys.executable, "-m", *words], stdout=said, stderr=said, cwd=cwd)  # noqa: S603
        try:
            yield
        except BaseException:
            say(log.read_text(errors="replace")[-3000:])
            raise
        finally:
            started.terminate()
            started.wait(30)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"node 1 is not ready after {DEADLINE_S:g} s")
        time.sleep(0.5)


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
