"""State databases of older versions are brought up to date when they are opened, whoever opens them first."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from qala.state import METADATA, SCHEMA_VERSION, open_state
from qala.state.rejected import RejectedLog, dropped, list_rejected, overflow

VERSION_1 = (
    "CREATE TABLE schema_version (version INTEGER NOT NULL)",
    "INSERT INTO schema_version VALUES (1)",
    """CREATE TABLE rejected (journal TEXT NOT NULL, position BIGINT NOT NULL, item INTEGER NOT NULL, reason TEXT NOT NULL,
    detail TEXT NOT NULL, "key" TEXT NOT NULL, device TEXT NOT NULL, topic TEXT NOT NULL, received_us BIGINT NOT NULL,
    payload BLOB NOT NULL, PRIMARY KEY (journal, position, item))""",
    'CREATE TABLE rejected_dropped (reason TEXT NOT NULL, "rows" BIGINT NOT NULL, PRIMARY KEY (reason))',
    "INSERT INTO rejected VALUES ('j', 7, 0, 'bad_json', 'detail', '', 'air/a1', 't', 5, x'7b')",
    "INSERT INTO rejected_dropped VALUES ('bad_json', 3)",
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Make a database as version 1 left it."""
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in VERSION_1:
            connection.execute(text(statement))
    engine.dispose()
    return url


def test_an_older_database_keeps_what_it_has_and_gets_the_shape_of_this_version(url: str) -> None:
    engine = open_state(url)

    [row] = list_rejected(engine)[0]
    assert (row.position, row.reason, row.offset, row.readings, row.account) == (7, "bad_json", None, 1, None)
    assert (dropped(engine), overflow(engine)) == ({"bad_json": 3}, {("", "bad_json"): 3})
    assert not inspect(engine).has_table("rejected_dropped")
    for table in METADATA.tables.values():
        assert {c["name"] for c in inspect(engine).get_columns(table.name)} == set(table.columns.keys()), table.name
    RejectedLog(engine, 10, 10)
    engine.dispose()


def test_it_is_brought_up_to_date_once(url: str) -> None:
    open_state(url).dispose()
    engine = open_state(url)

    with engine.connect() as connection:
        assert connection.execute(text("SELECT version FROM schema_version")).scalars().all() == [SCHEMA_VERSION]
    assert len(list_rejected(engine)[0]) == 1
    engine.dispose()


def test_a_step_that_fails_leaves_the_database_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from qala.state import migrations

    steps = migrations._TO_VERSION[2]
    monkeypatch.setattr(migrations, "_TO_VERSION", {2: (*steps, ("rejected", "NONSENSE"))})
    with pytest.raises(Exception, match="NONSENSE"):
        open_state(url)
    monkeypatch.undo()

    engine = open_state(url)
    assert (len(list_rejected(engine)[0]), dropped(engine)) == (1, {"bad_json": 3})
    engine.dispose()


def test_of_many_that_open_it_at_once_one_brings_it_up_to_date(url: str) -> None:
    failed: list[BaseException] = []

    def open_it() -> None:
        try:
            open_state(url).dispose()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test tells
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    engine = open_state(url)
    assert dropped(engine) == {"bad_json": 3}
    engine.dispose()
