"""Who reaches what: nothing listens beyond this machine without TLS and credentials, unless told so in one setting."""

from __future__ import annotations

from typing import Protocol

from dashboards.settings import DashboardsSettings
from devices.errors import ConfigError
from ingest.settings import IngestSettings, is_loopback, parse_address

__all__ = ["check_exposure"]

_UNLESS = "or accept that whoever reaches it may do all of it: insecure = true"


class _Exposed(Protocol):
    """What of the configuration is looked at."""

    @property
    def ingest(self) -> IngestSettings: ...
    @property
    def dashboards(self) -> DashboardsSettings: ...
    @property
    def insecure(self) -> bool: ...


def check_exposure(config: _Exposed) -> None:
    """Check what listens where, over the whole configuration. Raises ConfigError at the first thing that is not allowed."""
    ingest, dashboards = config.ingest, config.dashboards
    _check_certificate(ingest, {"ingest.mqtts": ingest.mqtts, "ingest.https": ingest.https})
    if config.insecure:
        return
    for key, address in (("ingest.mqtt", ingest.mqtt), ("ingest.http", ingest.http)):
        if _is_beyond(address):
            raise _refusal(key, address, "without TLS", f"use {key}s with ingest.certificate and ingest.authenticate")
    for key, address in (("ingest.mqtts", ingest.mqtts), ("ingest.https", ingest.https)):
        if _is_beyond(address) and not ingest.authenticate:
            raise _refusal(key, address, "without credentials", "set ingest.authenticate = true")
    if _is_beyond(dashboards.http):
        hint = "use dashboards.https with a certificate"
        raise _refusal("dashboards.http", dashboards.http, "without TLS", hint)


def _check_certificate(ingest: IngestSettings, over_tls: dict[str, str]) -> None:
    """Make sure that what speaks TLS can, and that nobody believes himself asked who is not."""
    if (ingest.certificate is None) != (ingest.private_key is None):
        raise ConfigError(
            "ingest.certificate and ingest.private_key belong together", hint="name both files, or none of them"
        )
    for key, address in over_tls.items():
        if address and ingest.certificate is None:
            raise ConfigError(
                f"{key} = {address!r} needs a certificate",
                hint="name its files: ingest.certificate, ingest.private_key",
            )
    if ingest.client_ca is not None and not ingest.authenticate:
        raise ConfigError(
            "ingest.client_ca is named, but nobody is asked for a certificate", hint="set ingest.authenticate = true"
        )


def _is_beyond(address: str) -> bool:
    """Tell whether other machines reach an address.

    >>> _is_beyond(""), _is_beyond("localhost:1883"), _is_beyond("0.0.0.0:1883"), _is_beyond("[::]:1883")
    (False, False, True, True)
    """
    return bool(address) and not is_loopback(parse_address(address)[0])


def _refusal(key: str, address: str, lacking: str, hint: str) -> ConfigError:
    return ConfigError(f"{key} = {address!r} would listen beyond this machine {lacking}", hint=f"{hint}, {_UNLESS}")
