"""/metrics: what Prometheus reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.api.app import create_app
from dashboards.health import HINTS
from dashboards.prometheus import Metric, Sample, counter, encode, gauge, histogram
from ingest.histogram import Histogram
from ingest.report import BrokerReport, DoorReport, ReportFile
from qala.config import load_config
from qala.wiring import build
from tests.api_city import City

_SAMPLE = re.compile(r"([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')

Parsed = dict[str, tuple[str, str, dict[tuple[tuple[str, str], ...], float]]]


def parse(text: str) -> Parsed:
    """Read the text format by its own rules: HELP, TYPE, then the samples of the metric, all together."""
    metrics: Parsed = {}
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            _, _, name, help_ = line.split(" ", 3)
            assert name not in metrics, "a metric's lines stand together"
            metrics[name] = (help_, "", {})
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            assert list(metrics)[-1] == name
            metrics[name] = (metrics[name][0], kind, {})
        else:
            found = _SAMPLE.fullmatch(line)
            assert found, line
            name, labels, value = found.groups()
            assert list(metrics)[-1] == name
            key = tuple((label, _unescaped(text)) for label, text in _LABEL.findall(labels or ""))
            assert key not in metrics[name][2], "a sample is given once"
            metrics[name][2][key] = float(value)
    return metrics


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), text)


@given(
    labels=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False)),
    help_=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
)
def test_any_label_and_number_can_be_read_back(labels: dict[str, float], help_: str) -> None:
    text = encode([gauge("qala_thing", help_, labels, label="name")]).decode()
    _, kind, samples = parse(text)["qala_thing"]
    assert kind == "gauge"
    assert samples == {(("name", name),): value for name, value in labels.items()}


def test_metrics_of_one_name_from_several_parts_stand_together() -> None:
    parts = [counter("qala_messages_total", "Messages.", {name: 1.0}, label="source") for name in ("a", "b")]
    text = encode([parts[0], gauge("qala_lag_seconds", "Lag.", 2.5), parts[1]]).decode()
    assert parse(text)["qala_messages_total"][2] == {(("source", "a"),): 1.0, (("source", "b"),): 1.0}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("messages_total", "counter", id="not ours"),
        pytest.param("qala_messages", "counter", id="a counter without _total"),
        pytest.param("qala_lag_total", "gauge", id="a gauge with it"),
        pytest.param("qala_Lag", "gauge", id="capitals"),
    ],
)
def test_a_name_follows_the_convention(name: str, kind: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        Metric(name, kind, "Help.", [Sample(1.0)])


def test_the_address_gives_what_every_part_counts(tmp_path: Path) -> None:
    city = City(tmp_path)
    own = counter("qala_messages_total", "Messages that were stored.", 12)
    city.app = create_app(replace(city.context, metrics=(lambda: [own],)))
    response = city.request("GET", "/metrics")
    city.close()
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    metrics = parse(response.text)
    assert metrics["qala_messages_total"] == ("Messages that were stored.", "counter", {(): 12.0})
    assert metrics["qala_live_clients"][1:] == ("gauge", {(): 0.0})


# ---- histograms


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0.001, 50), min_size=1, max_size=5, unique=True).map(sorted))
def test_a_histogram_counts_what_is_at_most_each_edge(values: list[float], edges: list[float]) -> None:
    counted = Histogram(tuple(edges))
    for value in values:
        counted.observe(value)
    text = encode([histogram("qala_wait_seconds", "Wait.", {"a": counted}, label="of")]).decode()
    samples = {
        (match[1], match[2]): float(match[3])
        for match in re.finditer(r'^qala_wait_seconds_(\w+)\{of="a"(?:,le="(.*)")?\} (.*)$', text, re.MULTILINE)
    }
    for edge in edges:
        assert samples["bucket", repr(edge)] == sum(value <= edge for value in values)
    assert samples["bucket", "+Inf"] == samples["count", None] == len(values)
    assert samples["sum", None] == pytest.approx(sum(values))


# ---- the whole, and what the documents say of it


def every_metric(folder: Path) -> list[Metric]:
    """Give the metrics of a server with a door and a broker."""
    broker = BrokerReport("city", "broker:8883", True, 0, "", 1, 2, 3, 4)
    ReportFile(folder / "door.json").write(DoorReport(brokers=(broker,)))
    app = build(load_config(flags={"data": folder}))
    try:
        return [*app.hub.metrics(), *app.metrics()]
    finally:
        app.close()


@pytest.fixture(scope="module")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> str:
    return encode(every_metric(tmp_path_factory.mktemp("qala"))).decode()


def documented() -> dict[str, tuple[str, str]]:
    """Give every metric that docs/metrics.md names, with its type and what it is."""
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    return {
        name: (kind, help_) for name, kind, help_ in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", page, re.MULTILINE)
    }


def test_the_documents_name_every_metric_and_no_other(exposition: str) -> None:
    helps = dict(re.findall(r"^# HELP (\w+) (.*)$", exposition, re.MULTILINE))
    kinds = dict(re.findall(r"^# TYPE (\w+) (.*)$", exposition, re.MULTILINE))
    assert documented() == {name: (kind, helps[name]) for name, kind in kinds.items()}


def test_promtool_finds_nothing_wrong(exposition: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: install the package prometheus")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=exposition, text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("code", sorted(HINTS))
def test_every_reason_of_health_has_words_in_every_language_and_in_the_documents(code: str) -> None:
    languages = {path.stem: path.read_text() for path in (ROOT / "dashboards/web/src/i18n").glob("??.ts")}
    assert {name for name, text in languages.items() if f'"reason.{code}": ' in text} == {"en", "ru", "kk"}
    documents = (ROOT / "docs" / "operating.md").read_text()
    assert f"`{code}`" in documents
