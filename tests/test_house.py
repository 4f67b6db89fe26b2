"""The house itself: its layers, its words to people, and what must not be in it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

import qala.cli
from qala.cli.shell import app

ROOT = Path(__file__).parents[1]
LINES_MAX, FUNCTION_LINES_MAX = 450, 65
TEXTS = {".py", ".md", ".toml", ".sh", ".ts", ".tsx", ".css", ".html", ".json", ".yml", ".geojson", ""}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def commands() -> dict[str, TyperCommand]:
    """Every command by what people type ("journal ls"), hidden ones left out."""

    def walk(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, TyperCommand]]:
        if isinstance(command, TyperGroup):
            for name, inner in command.commands.items():
                yield from walk(inner, (*words, name))
        elif isinstance(command, TyperCommand) and not command.hidden:
            yield " ".join(words), command

    for module in pkgutil.iter_modules(qala.cli.__path__):
        importlib.import_module(f"qala.cli.{module.name}")
    return dict(walk(typer.main.get_command(app), ()))


def test_the_layers_of_the_house_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_command_says_what_it_does_and_every_option_what_it_is_for() -> None:
    unsaid = [f"{name}: {p.name}" for name, c in commands().items() for p in c.params if not getattr(p, "help", "x")]
    assert [name for name, command in commands().items() if not command.help] == []
    assert unsaid == []


def test_commands_that_list_print_json_too() -> None:
    reading = [
        name for name in commands() if name.split()[-1] in {"ls", "candidates", "config", "check", "doctor", "version"}
    ]
    assert len(reading) >= 8
    assert [name for name in reading if "--json" not in {o for p in commands()[name].params for o in p.opts}] == []


def test_the_commands_that_the_documents_name_exist() -> None:
    known = set(commands()) | {name.split()[0] for name in commands()}
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        (page.name, words)
        for page in pages
        if page.exists()
        for words in re.findall(
            r"(?:^|`)(?:\.venv/bin/)?qala ([a-z]+(?: (?:ls|replay|import|admit|candidates|ack|ingest))?)",
            page.read_text(),
            re.MULTILINE,
        )
    }
    assert {(page, words) for page, words in named if words not in known and words.split()[0] not in known} == set()


def test_the_scripts_that_the_readme_names_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"\bscripts/[a-z-]+\b", readme))
    assert {"scripts/demo", "scripts/test"} <= named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"/work/|/root/|/home/[a-z]", id="paths of a machine"),
        pytest.param(r"https?://[^\s\"')]*(?:pypi|npmjs)[^\s\"')]*/simple|\bindex-url\b", id="addresses of an index"),
        pytest.param(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b", id="notes of unfinished work"),
    ],
)
def test_no_file_holds(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked()
        if path.suffix in TEXTS and path != Path(__file__) and path.name != "package-lock.json"
        if (match := re.search(pattern, path.read_text(encoding="utf-8", errors="replace")))
    ]
    assert found == []


def test_modules_and_functions_are_read_in_one_sitting() -> None:
    modules = [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] != "tests"]
    assert len(modules) > 100
    long = [
        f"{path.relative_to(ROOT)} {what}: {lines} lines"
        for path in modules
        for what, lines, most in measured(path.read_text())
        if lines > most
    ]
    assert long == []


def measured(source: str) -> Iterator[tuple[str, int, int]]:
    """Yield what there is in a module, how long it is, and how long it may be: the module itself and its functions."""
    yield "as a whole", len(source.splitlines()), LINES_MAX
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1, FUNCTION_LINES_MAX
