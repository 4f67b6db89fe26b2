"""The configuration: precedence, where each value came from, and what is said of mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devices.errors import ConfigError
from qala.config import Config, effective, load_config


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work where no qala.toml lies and no variable of the developer's own is set."""
    monkeypatch.chdir(tmp_path)
    for name in ("QALA_DATA", "QALA_INGEST__MQTT", "QALA_DASHBOARDS__HTTP"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(text: str) -> None:
    Path("qala.toml").write_text(text)


def origin(config: Config, key: str) -> tuple[object, str]:
    row = next(row for row in effective(config) if row.key == key)
    return row.value, row.origin


def test_every_setting_says_what_it_is_for_and_in_which_unit() -> None:
    broker = {"ingest": {"brokers": {"city": {"url": "mqtt://127.0.0.1"}}}}
    for row in effective(Config.model_validate(broker)):
        assert re.fullmatch(r"[^a-z].+\.", row.description), row.key
        assert "[" in row.description or not re.search(r"_(s|ms|mb|bytes|days)$", row.key), row.key


def test_without_anything_every_setting_is_a_default() -> None:
    config = load_config()
    assert {row.origin for row in effective(config)} == {"default"}
    assert config.ingest.mqtt == "127.0.0.1:1883"
    assert config.store_url == f"duckdb://{Path.cwd()}/data/readings.duckdb"
    assert config.state_url == f"sqlite:///{Path.cwd()}/data/state.sqlite"


def test_file_environment_and_flags_win_in_this_order(monkeypatch: pytest.MonkeyPatch) -> None:
    write('data = "from-file"\ntime_zone = "UTC"\n[ingest]\nmqtt = "127.0.0.1:1"\ntopic_root = "city"\n')
    monkeypatch.setenv("QALA_DATA", "from-environment")
    monkeypatch.setenv("QALA_INGEST__MQTT", "127.0.0.1:2")

    config = load_config(flags={"ingest.mqtt": "127.0.0.1:3", "dashboards.http": None})

    assert origin(config, "ingest.mqtt") == ("127.0.0.1:3", "flag")
    assert origin(config, "data") == ("from-environment", "environment")
    assert origin(config, "ingest.topic_root") == ("city", "qala.toml")
    assert origin(config, "time_zone") == ("UTC", "qala.toml")
    assert origin(config, "dashboards.http")[1] == "default"


def test_a_variable_of_another_purpose_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QALA_REQUIRE_SERVERS", "1")
    monkeypatch.setenv("QALA_SHARED", "/somewhere")
    assert load_config().data == Path("data")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        pytest.param("dtaa = 'x'", r"unknown key 'dtaa' \(qala.toml\) \(did you mean 'data'\?\)", id="misspelt key"),
        pytest.param("[ingest]\nmqt = 'x'", "did you mean 'ingest.mqtt'", id="misspelt key in a section"),
        pytest.param("[ingets]\nmqtt = 'x'", "unknown key 'ingets.mqtt'", id="misspelt section"),
        pytest.param("[ingest]\nqueue_max = 'many'", "ingest.queue_max = 'many'", id="wrong type"),
        pytest.param("[ingest]\nenrol = 'maybe'", "'enrol' or 'reject'", id="not among the choices"),
        pytest.param("ingest = 3", r"'ingest' must be a table \(qala.toml\)", id="a section that is a number"),
        pytest.param(
            "[rehearsal]\nfaults = false", "'rehearsal.faults' must be a table", id="a table within that is none"
        ),
        pytest.param("data = ", "is not TOML", id="not TOML"),
        pytest.param(f"data = '/tmp/{'x' * 100}'", "longer than 92 bytes", id="a folder whose sockets have no address"),
        pytest.param("[analytics]\nwebhook = 'city'", "analytics.webhook = 'city'", id="a webhook that is no address"),
        pytest.param("time_zone = 'Almaty'", "no time zone is called 'Almaty'", id="unknown time zone"),
        pytest.param(
            "[ingest]\nmqtt = '0.0.0.0:1883'", "beyond this machine without TLS", id="plain MQTT to the world"
        ),
        pytest.param(
            "[ingest]\nhttp = '[::]:80'", "beyond this machine without TLS", id="plain HTTP ingest to the world"
        ),
        pytest.param(
            "[dashboards]\nhttp = '0.0.0.0:80'", "beyond this machine without TLS", id="a plain page to the world"
        ),
        pytest.param(
            "[ingest]\nmqtts = '0.0.0.0:8883'\ncertificate = 'c'\nprivate_key = 'k'",
            "beyond this machine without credentials",
            id="MQTT over TLS to the world, and nobody is asked",
        ),
        pytest.param(
            "[ingest]\nhttps = '192.0.2.1:443'\ncertificate = 'c'\nprivate_key = 'k'",
            "beyond this machine without credentials",
            id="HTTP ingest over TLS to the world, and nobody is asked",
        ),
        pytest.param("[ingest]\nmqtts = '127.0.0.1:8883'", "needs a certificate", id="TLS without a certificate"),
        pytest.param("[ingest]\ncertificate = 'c'", "belong together", id="a certificate without its key"),
        pytest.param(
            "[ingest]\ncertificate = 'c'\nprivate_key = 'k'\nclient_ca = 'a'",
            "nobody is asked",
            id="client certificates that nobody asks for",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named_with_a_hint(toml: str, message: str) -> None:
    write(toml)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config()
    assert caught.value.hint


_TLS = "certificate = 'c'\nprivate_key = 'k'\n"


@pytest.mark.parametrize(
    "toml",
    [
        pytest.param("[ingest]\nmqtt = '[::1]:1883'\nhttp = 'localhost:8081'", id="plain, and only this machine"),
        pytest.param("[ingest]\nmqtt = ''", id="no plain MQTT at all"),
        pytest.param(f"[ingest]\nmqtts = '0.0.0.0:8883'\nauthenticate = true\n{_TLS}", id="TLS and credentials"),
        pytest.param(f"[ingest]\nmqtts = '127.0.0.1:8883'\n{_TLS}", id="TLS, and only this machine"),
        pytest.param("insecure = true\n[ingest]\nmqtt = '0.0.0.0:1883'\n[dashboards]\nhttp = '[::]:80'", id="told to"),
    ],
)
def test_what_may_listen_where_is_one_rule(toml: str) -> None:
    write(toml)
    assert load_config().ingest.model_fields_set


@pytest.mark.parametrize("name", ["QALA_INGEST__MQT", "QALA_DATTA", "QALA_TIMEZONE"])
def test_a_misspelt_variable_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(ConfigError, match="did you mean"):
        load_config()


def test_a_missing_file_is_an_error_only_when_it_was_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"cannot read other\.toml"):
        load_config(Path("other.toml"))


@pytest.mark.parametrize(
    "days", [pytest.param("0", id="none"), pytest.param("inf", id="endless"), pytest.param("1e300", id="too many")]
)
def test_days_to_keep_are_between_a_day_and_a_century(days: str) -> None:
    write(f"[store]\nkeep_days = {{ default = {days} }}\n")
    with pytest.raises(ConfigError, match=r"store\.keep_days.*qala\.toml.*keep between 1 day and 36500"):
        load_config()


@pytest.mark.parametrize("name", ["token", "Token", "api_token", "auth", "PASSWORD"])
def test_a_store_url_that_holds_a_secret_is_refused_and_not_repeated(name: str) -> None:
    write(f'[store]\nurl = "influxdb://127.0.0.1:8086/o/b?{name}=hidden-one"\n')
    with pytest.raises(ConfigError, match="holds a password or a token") as raised:
        load_config()
    assert "hidden-one" not in f"{raised.value} {raised.value.hint}"


def test_a_variable_that_is_no_table_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QALA_STORE", "hidden-one")
    with pytest.raises(ConfigError, match="store") as raised:
        load_config()
    assert "hidden-one" not in f"{raised.value} {raised.value.hint}"


def test_each_broker_is_a_table_of_its_own_in_file_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        '[ingest.brokers.city]\nurl = "mqtt://city"\ntopics = ["a/#", "b"]\n[ingest.brokers.roads]\nurl = "mqtts://roads:1"\n'
    )
    monkeypatch.setenv("QALA_INGEST__BROKERS__CITY__PASSWORD_FILE", "secret")
    monkeypatch.setenv("QALA_INGEST__BROKERS__CITY__TOPICS", '["c"]')

    config = load_config()

    assert set(config.ingest.brokers) == {"city", "roads"}
    assert config.ingest.brokers["roads"].address == ("roads", 1, True)
    assert origin(config, "ingest.brokers.city.url") == ("mqtt://city", "qala.toml")
    assert origin(config, "ingest.brokers.city.topics") == (["c"], "environment")
    assert origin(config, "ingest.brokers.city.password_file") == ("secret", "environment")
    assert origin(config, "ingest.brokers.roads.keep_alive_s") == (30, "default")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        pytest.param(
            "[ingest.brokers.city]\nurll = 'mqtt://x'", "did you mean 'ingest.brokers.NAME.url'", id="misspelt key"
        ),
        pytest.param("[ingest.brokers.city]\ntopics = ['a']", "field required", id="no address"),
        pytest.param("[ingest.brokers.'The City']\nurl = 'mqtt://x'", "should match pattern", id="a name with a space"),
        pytest.param("[ingest]\nbrokers = 3", "'ingest.brokers' must be a table", id="no tables"),
        pytest.param(
            "[ingest.brokers]\ncity = 3", "'ingest.brokers.city' must be a table", id="a broker that is no table"
        ),
    ],
)
def test_a_mistake_in_a_broker_is_named(toml: str, message: str) -> None:
    write(toml)
    with pytest.raises(ConfigError, match=message):
        load_config()
