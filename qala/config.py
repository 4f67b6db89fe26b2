"""The configuration: every setting of the four packages, where it comes from, and what is wrong with it.

Precedence: defaults < qala.toml < QALA_* environment (`QALA_INGEST__MQTT=127.0.0.1:1884`) < flags.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from analytics.settings import AnalyticsSettings
from dashboards.settings import DashboardsSettings
from devices.errors import ConfigError
from ingest.settings import IngestSettings, parse_address
from qala.city import RehearsalSettings
from qala.exposure import check_exposure
from qala.store.settings import StoreSettings

__all__ = ["CONFIG_FILE", "Config", "Setting", "effective", "load_config"]

CONFIG_FILE = Path("qala.toml")
_PREFIX = "QALA_"
_SOCKET_MAX = 107  # bytes of a unix socket's address on Linux (unix(7))

_Tree = Mapping[str, Any]


class LogSettings(BaseModel):
    """Settings of the logs of all processes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["text", "json"] = Field(default="text", description="'text' for people, 'json': one object a line.")
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="From which level on.")


class Config(BaseSettings):
    """Every setting, checked. Made by `load_config`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
    )

    data: Path = Field(Path("data"), description="Folder of the journal, the store and the state.")
    state: str = Field("", description="URL of the state database; empty: SQLite in the data folder.")
    time_zone: str = Field("Asia/Almaty", description="Time zone of local days.")
    devices_file: Path | None = Field(None, description="CSV or YAML file of devices that is imported at start.")
    zones_file: Path | None = Field(None, description="GeoJSON file of zones that is imported at start.")
    insecure: bool = Field(
        False, description="Listen beyond this machine without TLS or credentials: who reaches it may read and write."
    )
    log: LogSettings = LogSettings()
    store: StoreSettings = StoreSettings.model_validate({})
    ingest: IngestSettings = IngestSettings.model_validate({})
    analytics: AnalyticsSettings = AnalyticsSettings.model_validate({})
    dashboards: DashboardsSettings = DashboardsSettings.model_validate({})
    rehearsal: RehearsalSettings = RehearsalSettings.model_validate({})

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ConfigError(f"no time zone is called {value!r}", hint='write a name such as "Asia/Almaty"') from None
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the base class's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave reading the sources to `load_config`, which knows where each key came from."""
        return (init_settings,)

    @property
    def folder(self) -> Path:
        """The data folder, absolute."""
        return self.data.expanduser().resolve()

    @property
    def store_url(self) -> str:
        return self.store.url or f"duckdb://{self.folder}/readings.duckdb"

    @property
    def state_url(self) -> str:
        return self.state or f"sqlite:///{self.folder}/state.sqlite"

    @property
    def socket(self) -> Path:
        """Where the running server answers its owner."""
        return self.folder / "qala.sock"

    @property
    def http(self) -> tuple[str, int]:
        return self.dashboards.address

    def certificate_of_page(self) -> tuple[Path, Path]:
        """Return the files of the certificate chain and the private key of `dashboards.https`.

        Raises ConfigError where neither it nor ingest has them.
        """
        own = (self.dashboards.certificate, self.dashboards.private_key)
        certificate, private_key = own if own[0] else (self.ingest.certificate, self.ingest.private_key)
        if certificate is None or private_key is None:
            raise ConfigError(
                "dashboards.https needs a certificate",
                hint="name its files: dashboards.certificate and dashboards.private_key, or those of ingest",
            )
        return certificate, private_key

    @property
    def mqtt(self) -> tuple[str, int] | None:
        """Where sensors connect with plain MQTT; None: nowhere."""
        return parse_address(self.ingest.mqtt) if self.ingest.mqtt else None

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Where the two processes listen with TCP, by key."""
        keys = ("ingest.mqtt", "ingest.mqtts", "ingest.http", "ingest.https", "dashboards.http", "dashboards.https")
        texts = {key: str(_at(self, key)) for key in keys}
        return {key: parse_address(text) for key, text in texts.items() if text}

    @property
    def mqtt_socket(self) -> Path:
        """Where the door takes messages of its owner."""
        return self.folder / "mqtt.sock"


class Setting(NamedTuple):
    """One effective setting."""

    key: str
    value: Any
    origin: str
    description: str


def load_config(path: Path | None = None, *, flags: Mapping[str, Any] | None = None) -> Config:
    """Read the configuration. `flags` are by dotted key ("ingest.mqtt"); those that are None were not given.

    Without a path, qala.toml of the current folder is read where it exists. Raises ConfigError on the first thing wrong.
    """
    sources = [
        (_file_name(path), _from_file(path)),
        ("environment", _from_environment()),
        ("flag", _nested({key: value for key, value in (flags or {}).items() if value is not None})),
    ]
    origins: dict[str, str] = {}
    merged: dict[str, Any] = {}
    for origin, tree in sources:
        for key, value in _flat(tree):
            _check_key(key, origin)
            origins[key] = origin
            _put(merged, key, value)
    config = _validated(merged, origins)
    _check_length(config.folder)
    check_exposure(config)
    if config.dashboards.https:
        config.certificate_of_page()  # raises where there is none
    config._origins.update(origins)  # noqa: SLF001 - its own maker
    return config


def effective(config: Config) -> list[Setting]:
    """List every setting with its value, where it came from, and what it is for, by key."""
    dumped = config.model_dump(mode="json")
    origins = config._origins  # noqa: SLF001 - its own module
    keys = (name for key in _keys(Config) for name in _named(key, dumped))
    return [Setting(key, _at(dumped, key), origins.get(key, "default"), _description(key)) for key in keys]


# ---- sources


def _file_name(path: Path | None) -> str:
    return str(path or CONFIG_FILE)


def _from_file(path: Path | None) -> _Tree:
    file = path or CONFIG_FILE
    if path is None and not file.exists():
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}", hint="check the path given with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}", hint="text values need quotes") from error


def _from_environment() -> _Tree:
    """Return the QALA_* variables as a tree.

    A variable with `__` is always meant for the configuration. One without may belong to something else, and is an error
    only where it looks like a misspelt key.
    """
    for name in sorted(os.environ):
        if name.startswith(_PREFIX):
            _check_variable(name)
    try:
        return EnvSettingsSource(Config)()
    except SettingsError as error:  # tells the field and not the value, which may be a secret
        raise ConfigError(
            f"an environment variable cannot be read: {error}", hint='a table is written as JSON: {"default": 400}'
        ) from None


def _check_variable(name: str) -> None:
    key = name.removeprefix(_PREFIX).lower().replace("__", ".")
    known = _keys(Config)
    if _form(key) in known or _form(key) in _sections(Config):
        return
    similar = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if "." in key or similar:
        raise ConfigError(
            f"the environment variable {name} sets nothing",
            hint=_suggestion(similar, "list all keys with: qala config"),
        )


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        _put(tree, key, value)
    return tree


# ---- keys


def _check_key(key: str, origin: str) -> None:
    known, sections, form = _keys(Config), _sections(Config), _form(key)
    if form in sections:
        raise ConfigError(
            f"{key!r} must be a table ({origin})", hint=f"write [{key}], and its keys below: qala config lists them"
        )
    if form not in known:
        names = [name.replace("*", "NAME") for name in (*known, *sections)]
        similar = difflib.get_close_matches(form.replace("*", "NAME"), names, n=1, cutoff=0.6)
        raise ConfigError(
            f"unknown key {key!r} ({origin})", hint=_suggestion(similar, "list all keys with: qala config")
        )


def _suggestion(similar: Sequence[str], otherwise: str) -> str:
    return f"did you mean {similar[0]!r}?" if similar else otherwise


@cache
def _keys(model: type[BaseModel], prefix: str = "") -> Sequence[str]:
    """List the dotted keys of a model, in the order of declaration. "*" stands for a name that people choose."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        chosen = "*." if get_origin(field.annotation) is dict else ""
        keys += _keys(inner, f"{prefix}{name}.{chosen}") if inner else [prefix + name]
    return keys


def _form(key: str) -> str:
    """Return a dotted key with "*" for each name that people choose."""
    names, sections = key.split("."), _sections(Config)
    for at in range(1, len(names)):
        if ".".join([*names[:at], "*"]) in sections:
            names[at] = "*"
    return ".".join(names)


def _named(form: str, tree: _Tree) -> list[str]:
    """List the keys of a form that a tree has: one for each name that was chosen."""
    before, chosen, after = form.partition(".*.")
    return [f"{before}.{name}.{after}" for name in _at(tree, before)] if chosen else [form]


def _sections(model: type[BaseModel], prefix: str = "") -> list[str]:
    """List the dotted names of a model's tables, and of the tables in them."""
    sections: list[str] = []
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner and get_origin(field.annotation) is dict:
            sections += [prefix + name, f"{prefix}{name}.*", *_sections(inner, f"{prefix}{name}.*.")]
        elif inner:
            sections += [prefix + name, *_sections(inner, f"{prefix}{name}.")]
    return sections


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _flat(tree: _Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree by dotted key; a table under a key that is no section is a leaf."""
    leaves = set(_keys(Config))
    for name, value in tree.items():
        key = prefix + name
        if isinstance(value, Mapping) and _form(key) not in leaves:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[name] = value


def _at(tree: Any, key: str) -> Any:
    """Return what a dotted key means, in tables or in settings."""
    for name in key.split("."):
        tree = tree[name] if isinstance(tree, Mapping) else getattr(tree, name)
    return tree


# ---- checks


def _validated(tree: dict[str, Any], origins: Mapping[str, str]) -> Config:
    try:
        return Config(**tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        described = _description(key)
        raise ConfigError(
            f"{key} = {first['input']!r} ({_origin(key, origins)}): {_lower(first['msg'])}",
            hint=described or "list all keys with: qala config",
        ) from error


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """Return where a key came from, or the table that it is in."""
    while key not in origins and "." in key:
        key = key.rpartition(".")[0]
    return origins.get(key, "default")


def _check_length(folder: Path) -> None:
    """Make sure that the folder's sockets have addresses. Raises ConfigError."""
    longest = _SOCKET_MAX - len("/projector.sock")
    if len(os.fsencode(folder)) > longest:
        raise ConfigError(
            f"the path of the data folder is longer than {longest} bytes, too long for the sockets in it: {folder}",
            hint="choose a shorter one with --data",
        )


def _description(key: str) -> str:
    model: type[BaseModel] | None = Config
    text = ""
    for name in _form(key).replace(".*", "").split("."):
        field = model.model_fields.get(name) if model else None
        if field is None:
            break
        text, model = field.description or "", _model_of(field.annotation)
    return text


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
