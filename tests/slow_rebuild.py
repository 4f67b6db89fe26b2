"""A rebuild that takes small batches, says when one is stored, and can be killed: python -m tests.slow_rebuild DATA FILES"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ingest.projector import Projector
from qala.config import load_config
from qala.rebuild import rebuild


def main(data: Path, files: Path) -> None:
    step = Projector.step

    def slowly(self: Projector, now_us: int) -> int:
        done = step(self, now_us)
        print("stored", done, flush=True)  # noqa: T201
        time.sleep(0.1)
        return done

    Projector.step = slowly  # type: ignore[method-assign]
    flags = {
        "data": data,
        "devices_file": files / "devices.csv",
        "zones_file": files / "zones.json",
        "ingest.batch_max": 100,
    }
    rebuild(load_config(flags=flags), into=None, force=False, say=lambda _: None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
