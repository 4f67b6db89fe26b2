"""Commands about the installation itself: its configuration, its rules, its health."""

from __future__ import annotations

import typer

from qala.cli.shell import (
    FAILED,
    ConfigOption,
    DataOption,
    HttpOption,
    JsonOption,
    MqttOption,
    StoreOption,
    app,
    configuration,
    say,
    show,
)


@app.command("config")
def config_(
    config: ConfigOption = None,
    data: DataOption = None,
    http: HttpOption = None,
    mqtt: MqttOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print every setting, its effective value, where it came from, and what it is for."""
    from qala.config import effective

    rows = effective(configuration(config, data, http=http, mqtt=mqtt, store=store))
    show([row._asdict() for row in rows], ["key", "value", "origin", "description"], as_json=as_json)


@app.command()
def check(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Check the configuration, the devices and zones files, and the rules by the tests inside them."""
    from qala.doctor import check as findings_of

    findings = findings_of(configuration(config, data))
    show([finding._asdict() for finding in findings], ["ok", "subject", "found", "hint"], as_json=as_json)
    _exit(all(finding.ok for finding in findings))


@app.command()
def doctor(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Look at ports, disk, clock, data folder and the running parts, and say what to do about what is wrong."""
    from qala.doctor import examine

    findings = examine(configuration(config, data))
    show([finding._asdict() for finding in findings], ["ok", "subject", "found", "hint"], as_json=as_json)
    _exit(all(finding.ok for finding in findings))


def _exit(well: bool) -> None:
    if not well:
        say("something is wrong; the hints say what to do")
        raise typer.Exit(FAILED)
