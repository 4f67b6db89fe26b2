"""/metrics: what Prometheus reads."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.api.app import create_app
from dashboards.prometheus import Metric, Sample, counter, encode, gauge
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
