"""The public contract: what the API answers with, as its documentation and its tests know it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from devices.errors import Reason

Item = TypeVar("Item")


class Model(BaseModel):
    """A closed shape: a field that is not named here is a mistake."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Page(Model, Generic[Item]):
    """A page of a list; `next` is the cursor of the page after it, null on the last."""

    items: list[Item]
    next: str | None


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable, `hint` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    hint: str
    code: str


State = Literal["live", "late", "silent", "never"]


class Device(Model):
    id: str = Field(examples=["city/air-001"])
    fleet: str
    kind: str
    domain: str
    name: str
    lat: float | None
    lon: float | None
    zones: list[str]
    interval_s: int
    state: State
    last_time: datetime | None
    last_received: datetime | None


class Placement(Model):
    zones: list[str]
    lat: float | None
    lon: float | None
    since: datetime | None
    until: datetime | None


class LatestReading(Model):
    series: int
    quantity: str
    channel: str
    span_s: int
    time: datetime
    value: float | None
    unit: str
    flag: int


class DeviceStatus(Model):
    """What the device last said of itself."""

    online: bool
    firmware: str | None
    interval_s: int | None
    time: datetime


class DeviceDetail(Device):
    placements: list[Placement]
    status: DeviceStatus | None
    latest: list[LatestReading]


class NewDevice(Model):
    """A device to admit."""

    id: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}/[A-Za-z0-9_.:-]{1,64}$", examples=["city/air-001"])
    kind: str
    name: str = Field(default="", max_length=200)
    interval_s: int | None = Field(default=None, ge=1, le=86_400)
    zones: list[str] = Field(default=[], max_length=10)
    lat: float | None = Field(default=None, ge=-90, le=90)
    lon: float | None = Field(default=None, ge=-180, le=180)


class Replayed(Model):
    """What became of messages that were decoded again; the journal no longer has those that are `pruned`."""

    replayed: int
    accepted: int
    still_rejected: int
    pruned: int


class Admitted(Replayed):
    device: Device


class Zone(Model):
    id: str
    kind: str
    names: dict[str, str]
    parent: str | None
    free_flow_kmh: float | None
    length_m: float | None
    rated_kw: float | None


class Feature(Model):
    type: Literal["Feature"]
    id: str
    geometry: dict[str, Any]
    properties: dict[str, Any]


class FeatureCollection(Model):
    type: Literal["FeatureCollection"]
    features: list[Feature]


class Series(Model):
    id: int
    device: str
    quantity: str
    channel: str
    span_s: int
    unit: str
    aggregation: str | None


class Reading(Model):
    series: int
    device: str
    quantity: str
    channel: str
    time: datetime
    value: float | None
    unit: str
    flag: Literal[1, 2, 3, 4, 9]
    revision: int
    received: datetime | None


class OverviewSeries(Model):
    """One column a bucket. A counter, a state and a direction have no arithmetic mean: theirs is null, use `last`.

    Of `count` readings `good` are usable by their own flag, and `sound` once the readings around them are seen too.
    """

    id: int
    device: str
    quantity: str
    channel: str
    unit: str
    aggregation: str | None
    count: list[int]
    good: list[int]
    sound: list[int]
    mean: list[float | None]
    min: list[float | None]
    max: list[float | None]
    last: list[float | None]


class Overview(Model):
    edges: list[datetime]
    series: list[OverviewSeries]


class Indicator(Model):
    name: str
    title: str
    domain: str
    unit: str
    method: str
    method_version: str
    zone_kind: str
    windows: list[str]
    quantities: list[str]
    grace_s: int
    min_coverage: float


class Value(Model):
    indicator: str
    zone: str
    window: str
    start: datetime
    stop: datetime
    value: float | None
    unit: str
    coverage: float = Field(ge=0, le=1)
    n_good: int
    n_expected: int
    status: str
    provisional: bool
    method: str
    method_version: str
    revision: int
    known: datetime | None
    detail: dict[str, Any]


class Acknowledged(Model):
    actor: str
    comment: str
    time: datetime


class Alert(Model):
    id: str
    rule: str
    title: str
    zone: str
    severity: str
    owner: str
    runbook: str
    kind: Literal["value", "no_data"]
    state: Literal["firing", "ended", "withdrawn"]
    start: datetime
    end: datetime | None
    indicator: str
    window: str
    unit: str
    value: float | None
    threshold: float | None
    acknowledged: Acknowledged | None


class Notice(Model):
    kind: str
    time: datetime
    recorded: datetime
    sent: datetime | None
    attempts: int
    suppressed: bool
    body: dict[str, Any]


class AlertDetail(Alert):
    notices: list[Notice]


class Acknowledge(Model):
    """Who takes care of an alert, and what they say about it."""

    actor: str = Field(min_length=1, max_length=100)
    comment: str = Field(default="", max_length=2_000)


class Rule(Model):
    id: str
    title: str
    indicator: str
    window: str
    zone_kind: str
    condition: str
    threshold: float
    clear: float
    unit: str
    for_s: int
    severity: str
    owner: str
    runbook: str


class Trial(Model):
    """A rule file to fold over the past, and the range of time."""

    toml: str = Field(max_length=32_768)
    start: str = Field(default="-48h", max_length=40)
    stop: str = Field(default="now", max_length=40)


class TriedEpisode(Model):
    """What a rule would have raised; `end` is null where it goes on."""

    zone: str
    start: datetime
    fired: datetime
    end: datetime | None
    worst: float


class Tried(Model):
    """What became of a trial: the rule's own tests that fail, and the episodes it gives."""

    rule: Rule
    failures: list[str]
    episodes: list[TriedEpisode]


class Rejected(Model):
    journal: str
    position: int
    item: int
    reason: str
    detail: str
    key: str
    device: str
    topic: str
    received: datetime
    payload: str
    payload_encoding: Literal["utf-8", "base64"]
    payload_cut: bool
    offset: int | None = Field(description="first bad byte of the payload, where it is known")
    readings: int = Field(description="readings that this stands for")


class RejectedCount(Model):
    """How many rejected rows are kept, and how many more were dropped because there were too many."""

    reason: str
    device: str
    count: int
    dropped: int
    last: datetime | None


class Replay(Model):
    """Which rejected messages to decode again; all where neither is given."""

    reason: Reason | None = None
    device: str | None = Field(default=None, max_length=201)


class Backup(Model):
    """Where to copy the store: an absolute path of a file that does not exist."""

    file: str = Field(pattern="^/", max_length=4096)


class Candidate(Model):
    device: str
    first: datetime
    last: datetime
    messages: int


class HealthReason(Model):
    """Why not all is well: a stable code, its parameters, and what a person can do about it."""

    code: str
    params: dict[str, Any]
    hint: str


class Health(Model):
    status: Literal["ok", "degraded", "down"]
    reasons: list[HealthReason]
    now: datetime
    version: str
    parts: dict[str, dict[str, Any]]


class Worst(Model):
    zone: str
    value: float


class Tile(Model):
    """One indicator for the whole city. `combine` says how its zones became one number."""

    domain: str
    indicator: str
    title: str
    unit: str
    window: str
    combine: Literal["mean", "max", "sum"]
    start: datetime | None
    stop: datetime | None
    value: float | None
    coverage: float
    provisional: bool
    status: str
    zones: int
    worst: Worst | None
    spark: list[float | None]


class DeviceStates(Model):
    live: int
    late: int
    silent: int
    never: int


class DomainSummary(Model):
    domain: str
    tiles: list[Tile]
    devices: DeviceStates


class AlertCounts(Model):
    firing: int
    unacknowledged: int


class City(Model):
    """Whose numbers these are: names by language, and the time zone of its days."""

    names: dict[str, str]
    time_zone: str


class Summary(Model):
    now: datetime
    city: City
    domains: list[DomainSummary]
    devices: DeviceStates
    alerts: AlertCounts
