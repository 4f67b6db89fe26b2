"""What can be set of the store: which engine, its limits, how long readings are kept, where closed days are exported to."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from devices.errors import ConfigError

__all__ = ["StoreSettings"]

_DAYS_MAX = 36_500  # a century; times are int64 microseconds


class StoreSettings(BaseModel):
    """Settings of the store; `[store]` in qala.toml, `QALA_STORE__...` in the environment. An engine takes what it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        default="",
        description="Where readings and values live: duckdb:///path or influxdb://HOST:PORT/ORG/BUCKET; empty: duckdb in the "
        "data folder.",
    )
    token: SecretStr = Field(default=SecretStr(""), description="Token of a server's API; never printed.")
    token_file: Path | None = Field(default=None, description="File with the token, instead of `token`.")
    memory_mb: int = Field(default=1024, ge=128, description="Memory that an embedded engine may take [MB].")
    threads: int = Field(default=2, ge=1, le=64, description="Threads of an embedded engine's queries.")
    readers: int = Field(default=4, ge=1, le=64, description="Queries at once; further ones wait.")
    settle_after_s: int = Field(
        default=3600, ge=0, description="Readings older than this are put in the order of their series [s]."
    )
    keep_days: dict[str, float] = Field(
        default={},
        description="How long readings are kept, by quantity (pm2_5), domain (traffic) or all (default); others for ever [days].",
    )
    lake: str = Field(
        default="", description="Folder, or URL of fsspec, that closed days are exported to as Parquet; empty: none."
    )

    # Both raise ConfigError by themselves: what is told of a ValueError repeats what was given.

    @field_validator("url")
    @classmethod
    def _without_secret(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
        except ValueError:
            raise ConfigError("store.url cannot be read", hint="brackets are for IPv6 addresses") from None
        if "@" in parts.netloc or _is_secret(parts.query):
            raise ConfigError(
                "store.url holds a password or a token",
                hint="set it with QALA_STORE__TOKEN or store.token_file instead",
            )
        return value

    @field_validator("token", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        if not isinstance(value, str | SecretStr):
            raise ConfigError("store.token is no text", hint="write it in quotes")
        return value

    @field_validator("keep_days")
    @classmethod
    def _rising(cls, value: dict[str, float]) -> dict[str, float]:
        for name, days in value.items():
            if not 1 <= days <= _DAYS_MAX:
                raise ValueError(
                    f"{name} = {days:g}: keep between 1 day and {_DAYS_MAX}; what is not named is kept for ever"
                )
        return value


def _is_secret(query: str) -> bool:
    names = [name.lower() for name in parse_qs(query, keep_blank_values=True)]
    return any(word in name for name in names for word in ("token", "passw", "secret", "auth"))
