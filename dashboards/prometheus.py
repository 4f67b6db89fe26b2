"""Prometheus' text exposition format 0.0.4 of what the parts count (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import msgspec

from ingest.histogram import Histogram

__all__ = ["CONTENT_TYPE", "Metric", "Sample", "counter", "encode", "gauge", "histogram"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NAME = re.compile(r"qala_[a-z0-9_]+")


class Sample(msgspec.Struct, frozen=True):
    """One number of a metric; `suffix` is what a histogram's samples have beside its name."""

    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


class Metric(msgspec.Struct, frozen=True):
    """A metric with its samples; `kind` is "counter", "gauge" or "histogram". A counter's name ends with `_total`."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or (self.kind == "counter") != self.name.endswith("_total"):
            raise ValueError(f"{self.name!r} is no name for a {self.kind}: qala_<thing>, and _total for counters only")


def counter(name: str, help_: str, value: float | Mapping[str, float], *, label: str = "") -> Metric:
    """Make a counter of one number, or of one for each value of a label."""
    return Metric(name, "counter", help_, _samples(value, label))


def gauge(name: str, help_: str, value: float | Mapping[str, float], *, label: str = "") -> Metric:
    """Make a gauge of one number, or of one for each value of a label."""
    return Metric(name, "gauge", help_, _samples(value, label))


def histogram(name: str, help_: str, value: Histogram | Mapping[str, Histogram], *, label: str = "") -> Metric:
    """Make a histogram of one distribution, or of one for each value of a label."""
    several = value if isinstance(value, Mapping) else {"": value}
    samples = [s for key, each in several.items() for s in _buckets(each, {label: key} if label else {})]
    return Metric(name, "histogram", help_, samples)


def _buckets(value: Histogram, labels: Mapping[str, str]) -> Iterable[Sample]:
    """Yield the counts up to each edge, each with those of the smaller ones, then the sum and the whole count."""
    upto = list(accumulate(value.counts))
    for edge, count in zip([*value.edges, math.inf], upto, strict=True):
        yield Sample(count, {**labels, "le": "+Inf" if math.isinf(edge) else repr(float(edge))}, "_bucket")
    yield Sample(value.sum, labels, "_sum")
    yield Sample(upto[-1], labels, "_count")


def _samples(value: float | Mapping[str, float], label: str) -> list[Sample]:
    if isinstance(value, Mapping):
        return [Sample(number, {label: name}) for name, number in value.items()]
    return [Sample(value)]


def encode(metrics: Iterable[Metric]) -> bytes:
    r"""Write metrics as text, those of one name once.

    >>> encode([counter("qala_messages_total", "Messages.", {"a": 2.0}, label="source")]).decode()
    '# HELP qala_messages_total Messages.\n# TYPE qala_messages_total counter\nqala_messages_total{source="a"} 2\n'
    """
    grouped: dict[str, list[Metric]] = {}
    for metric in metrics:
        grouped.setdefault(metric.name, []).append(metric)
    return "".join(line for same in grouped.values() for line in _lines(same)).encode()


def _lines(same: Sequence[Metric]) -> Iterable[str]:
    first = same[0]
    help_ = first.help.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {first.name} {help_}\n# TYPE {first.name} {first.kind}\n"
    for metric in same:
        for sample in metric.samples:
            yield f"{metric.name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
