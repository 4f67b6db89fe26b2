"""Who is let in to the API: every address asked with every kind of token, sessions of browsers, and what is refused."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dashboards.api.access import COOKIE
from dashboards.api.guard import CSP, HSTS
from dashboards.api.server import OverTls
from dashboards.frames import Frames
from dashboards.settings import DashboardsSettings
from devices.errors import ConfigError, NotFoundError, UnavailableError
from ingest.tls import server_context
from qala.state import tokens
from qala.state.tokens import Scope
from tests.api_city import HOUR, NOW, City, make_episode
from tests.pki import Authority
from tests.wait import until

SITE = {"origin": "http://127.0.0.1:8080"}
GIVEN = "{fleet}/{device}", "{id}", "{name}", "{rule}"


@contextmanager
def asking_city(folder: Path, **settings: Any) -> Iterator[City]:
    """Make a city that asks for tokens."""
    city = City(folder, settings=DashboardsSettings(**{"page": folder / "page", "authenticate": True, **settings}))
    yield city
    city.close()


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    with asking_city(tmp_path) as made:
        yield made


def issue(city: City, scope: Scope = Scope.READ, *, name: str = "panel", expires_us: int | None = None) -> str:
    """Issue a token past the API, as another process would, and let the server see it."""
    text = tokens.issue(city.state, name, scope, NOW - HOUR, expires_us=expires_us)[1]
    city.app.state.visitors.load()
    return text


def revoke(city: City, token: str) -> None:
    tokens.revoke(city.state, token.partition(".")[0], NOW)
    city.app.state.visitors.load()


def with_token(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def sign_in(city: City, token: str, **options: Any) -> httpx.Response:
    return city.request("POST", "/api/v1/session", json={"token": token}, **options)


def cookie_of(answer: httpx.Response) -> dict[str, str]:
    """Return the header that a browser sends for the cookie of an answer."""
    return {"cookie": answer.headers["set-cookie"].partition(";")[0]}


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# ---- every address


def addresses(city: City) -> list[tuple[str, str]]:
    """List the method and path of every address: what the description names, and what it leaves out."""
    paths = city.app.openapi()["paths"]
    described = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    unnamed = [
        ("GET", "/api/docs"),
        ("GET", "/api/v1/openapi.json"),
        ("GET", "/api/v1/nothing"),
        ("PUT", "/api/v1/zones"),
    ]
    return [(method, _concrete(path)) for method, path in described + unnamed]


def _concrete(path: str) -> str:
    for blank, given in zip(GIVEN, ("city/air-1", "x", "pm2_5_mean", "pm2_5_high"), strict=True):
        path = path.replace(blank, given)
    assert "{" not in path, f"say what to ask for in {path}"
    return path


def expected(kind: str, method: str, path: str) -> int | None:
    """Return the status that an address answers a kind of visitor with, None where it lets them in."""
    if (method, path) == ("POST", "/api/v1/session"):
        return 401  # of the token in its body
    if kind in {"revoked", "expired", "wrong"}:
        return 401
    if kind == "none":
        return None if path == "/api/v1/health" else 401
    writes = method not in {"GET", "HEAD"} and (method, path) != ("DELETE", "/api/v1/session")
    return 403 if kind == "read" and writes else None


def _tokens(city: City) -> dict[str, str | None]:
    revoked = issue(city, Scope.OPERATE)
    revoke(city, revoked)
    return {
        "none": None,
        "read": issue(city, Scope.READ),
        "operate": issue(city, Scope.OPERATE),
        "revoked": revoked,
        "expired": issue(city, Scope.OPERATE, expires_us=NOW),
        "wrong": issue(city, Scope.OPERATE)[:-4] + "AAAA",
    }


@pytest.mark.parametrize("kind", ["none", "read", "operate", "revoked", "expired", "wrong"])
def test_every_address_lets_in_whom_it_should(city: City, kind: str) -> None:
    token = _tokens(city)[kind]
    city.hub.close()  # so that the live stream answers at once, that there are no more
    asked = addresses(city)
    assert len(asked) > 35
    surprises = []
    for number, (method, path) in enumerate(asked):
        answer = city.request(
            method,
            path,
            client=f"10.0.0.{number}",
            headers=with_token(token) if token else {},
            json={"token": "x"} if method != "GET" else None,
        )
        wanted = expected(kind, method, path)
        found = answer.status_code
        if found != wanted if wanted else found in {401, 403, 429}:
            surprises.append((method, path, found, wanted))
        if found in {401, 403}:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["hint"]
    assert surprises == []


@pytest.mark.parametrize("path", ["/api/v1/store/backup", "/api/v1/tokens", "/api/v1/tokens/x/revoke"])
def test_what_is_the_owners_alone_takes_no_token(city: City, path: str) -> None:
    answer = city.request("POST", path, json={}, headers=with_token(issue(city, Scope.OPERATE)))
    assert code(answer) == (403, "owner_only")


@pytest.mark.parametrize("path", ["/", "/index.html", "/early.js", "/favicon.svg", "/assets/index-1.js"])
def test_the_files_of_the_page_need_no_token(city: City, path: str) -> None:
    file = city.settings.page / path.removeprefix("/").replace("index.html", "") / ("" if "." in path else "index.html")
    (city.settings.page / "assets").mkdir(parents=True, exist_ok=True)
    (city.settings.page / "index.html").write_text("page")
    if path not in {"/", "/index.html"}:
        file.write_text("page")
    stale = {"cookie": f"{COOKIE}=of-another-day"}
    assert [city.request("GET", path, headers=headers).status_code for headers in ({}, stale)] == [200, 200]
    assert city.request("GET", "/assets/..%2f..%2fstate.sqlite").status_code == 404


def test_the_built_page_holds_no_file_that_needs_a_token(city: City) -> None:
    built = DashboardsSettings().page
    if not (built / "index.html").exists():
        pytest.skip("the page is not built")
    files = [f"/{path.relative_to(built)}" for path in built.rglob("*") if path.is_file()]
    assert [path for path in files if city.request("GET", path).status_code == 401] == []


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"GET //api/v1/zones", id="two slashes"),
        pytest.param(b"GET /%61pi/v1/zones", id="an escaped letter"),
        pytest.param(b"GET /assets/../api/v1/zones", id="by the page's folder"),
        pytest.param(b"GET /assets/%2e%2e/api/v1/zones", id="by the page's folder, escaped"),
        pytest.param(b"GET http://127.0.0.1/api/v1/zones", id="as a proxy is asked"),
        pytest.param(b"GET /api/v1/health/../zones", id="by an open address"),
        pytest.param(b"GET /api/v1/health;/zones", id="by an open address and a parameter"),
        pytest.param(b"get /api/v1/zones", id="a method in small letters"),
        pytest.param(b"OPTIONS /api/v1/zones", id="another method"),
        pytest.param(b"POST /", id="writing to the page"),
    ],
)
def test_no_way_of_writing_an_address_leads_around_the_guard(city: City, line: bytes) -> None:
    with city.served() as address:
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(line + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.split()[1] in {b"401", b"404"}
    assert b"district-a" not in answer


def test_health_tells_strangers_the_status_alone(city: City) -> None:
    assert city.get("/health").json() == {"status": "ok"}
    assert "parts" in city.get("/health", headers=with_token(issue(city))).json()


def test_an_authorization_of_another_scheme_is_none(city: City) -> None:
    session = cookie_of(sign_in(city, issue(city)))
    basic = {"authorization": "Basic cXVhbGE6eA=="}
    assert code(city.get("/zones", headers=basic)) == (401, "no_token")
    assert city.get("/zones", headers=basic | session).status_code == 200


# ---- when tokens are asked


@pytest.mark.parametrize(
    ("settings", "insecure", "asked"),
    [
        pytest.param({}, False, False, id="on loopback nobody is asked"),
        pytest.param({"authenticate": True}, True, True, id="where it is set"),
        pytest.param({"hosts": ["qala.example"]}, False, True, id="behind a proxy"),
        pytest.param({"https": "0.0.0.0:8443"}, False, True, id="beyond loopback"),
        pytest.param({"https": "0.0.0.0:8443"}, True, False, id="beyond loopback and told so"),
    ],
)
def test_tokens_are_asked_as_soon_as_others_may_come(settings: dict[str, Any], insecure: bool, asked: bool) -> None:
    assert DashboardsSettings(**settings).asks_tokens(insecure=insecure) is asked


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"http": ""}, "both empty", id="nowhere to listen"),
        pytest.param({"hosts": ["https://qala.example"]}, "no host name", id="an address for a name"),
        pytest.param({"hosts": ["*"]}, "no host name", id="any name"),
        pytest.param({"certificate": "c.pem"}, "belong together", id="a certificate without its key"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DashboardsSettings(**settings)


# ---- tokens


def test_a_token_is_kept_as_a_hash_and_never_again_shown(city: City, tmp_path: Path) -> None:
    token = issue(city)
    id_, _, secret = token.partition(".")
    session = cookie_of(sign_in(city, token))["cookie"].partition("=")[2]
    assert (len(id_), len(secret), len(session)) == (8, 43, 43)
    files = b"".join(path.read_bytes() for path in tmp_path.glob("state.sqlite*"))
    assert id_.encode() in files
    assert secret.encode() not in files
    assert session.encode() not in files


def test_the_use_of_a_token_is_noted_at_most_once_a_minute(city: City) -> None:
    headers = with_token(issue(city))

    def noted() -> int | None:
        assert city.get("/zones", headers=headers).status_code == 200
        return tokens.tokens(city.state)[0].last_used_us

    assert noted() == NOW
    city.time_us = NOW + 59_000_000
    assert noted() == NOW
    city.time_us = NOW + 61_000_000
    assert noted() == NOW + 61_000_000


def test_a_token_holds_until_the_moment_that_it_expires(city: City) -> None:
    headers = with_token(issue(city, expires_us=NOW + 10))
    assert city.get("/zones", headers=headers).status_code == 200
    city.time_us = NOW + 10
    assert city.get("/zones", headers=headers).status_code == 401


@pytest.mark.parametrize("name", ["", " panel", "owner", "Nobody", "a\nb", "x" * 101])
def test_a_token_has_a_name_that_people_can_tell_apart(city: City, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be called"):
        tokens.issue(city.state, name, Scope.READ, NOW)


def test_what_is_revoked_stays_revoked_and_what_is_unknown_is_said(city: City) -> None:
    id_ = issue(city).partition(".")[0]
    assert tokens.revoke(city.state, id_, NOW).revoked_us == NOW
    assert tokens.revoke(city.state, id_, NOW + 1).revoked_us == NOW
    with pytest.raises(NotFoundError):
        tokens.revoke(city.state, "nothing", NOW)


def test_who_fails_often_is_told_to_wait_and_who_is_right_gets_in_meanwhile(city: City) -> None:
    right, wrong = issue(city), with_token("abcd2345." + "x" * 43)
    answers = [city.get("/zones", headers=wrong, client="10.0.0.7") for _ in range(12)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 6
    assert code(sign_in(city, "wrong", client="10.0.0.7")) == (429, "too_many_attempts")
    assert city.get("/zones", headers=wrong, client="10.0.0.8").status_code == 401
    assert city.get("/zones", headers=with_token(right), client="10.0.0.7").status_code == 200


# ---- sessions of browsers


def test_a_session_is_a_cookie_that_no_script_reads_and_no_other_site_sends(city: City) -> None:
    answer = sign_in(city, issue(city, Scope.OPERATE, name="control room"), headers=SITE)
    assert answer.json() == {"name": "control room", "scope": "operate", "asked": True, "cookie": True}
    name, _, flags = answer.headers["set-cookie"].partition("=")
    assert name == "__Host-qala"
    assert set(flags.partition("; ")[2].split("; ")) == {
        "Path=/",
        "Secure",
        "HttpOnly",
        "SameSite=Strict",
        "Max-Age=2592000",
    }
    assert city.get("/session", headers=cookie_of(answer)).json() == answer.json()


def test_a_session_ends_by_signing_out_and_by_the_end_of_its_token(city: City) -> None:
    token = issue(city, expires_us=NOW + 3 * HOUR)
    first, second, third = (cookie_of(sign_in(city, token)) for _ in range(3))
    answer = city.request("DELETE", "/api/v1/session", headers=first | SITE)
    assert (answer.status_code, "Max-Age=0" in answer.headers["set-cookie"]) == (204, True)
    assert code(city.get("/zones", headers=first)) == (401, "no_token")
    assert city.get("/zones", headers=second).status_code == 200
    city.time_us = NOW + 3 * HOUR
    assert city.get("/zones", headers=second).status_code == 401
    city.time_us = NOW
    revoke(city, token)
    assert city.get("/zones", headers=third).status_code == 401


def test_a_session_survives_a_restart_and_the_oldest_of_many_ends(city: City) -> None:
    token = issue(city)
    first = cookie_of(sign_in(city, token))
    city.start()
    assert city.get("/zones", headers=first).status_code == 200
    for number in range(tokens.SESSIONS_MAX):
        city.time_us = NOW + number + 1
        last = cookie_of(sign_in(city, token))
    assert [city.get("/zones", headers=one).status_code for one in (first, last)] == [401, 200]
    assert len(tokens.sessions(city.state)) == tokens.SESSIONS_MAX


def test_signing_in_again_ends_the_session_before(city: City) -> None:
    token = issue(city)
    before = cookie_of(sign_in(city, token))
    sign_in(city, token, headers=before | SITE)
    assert city.get("/zones", headers=before).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"sec-fetch-site": "same-origin"}, 200, id="our page"),
        pytest.param({"origin": "http://127.0.0.1:8080"}, 200, id="our page, in an older browser"),
        pytest.param({"sec-fetch-site": "cross-site"}, 403, id="another site"),
        pytest.param({"sec-fetch-site": "same-site"}, 403, id="a neighbour of the same domain"),
        pytest.param({"sec-fetch-site": "none"}, 403, id="nobody's page"),
        pytest.param({"origin": "http://127.0.0.1:9090"}, 403, id="another port of the same host"),
        pytest.param({"origin": "null"}, 403, id="a sandboxed frame"),
        pytest.param({"origin": "http://[::bad"}, 403, id="an origin that is none"),
        pytest.param({}, 403, id="no word about it"),
    ],
)
def test_a_session_writes_for_our_page_alone(city: City, headers: dict[str, str], status: int) -> None:
    session = cookie_of(sign_in(city, issue(city, Scope.OPERATE)))
    answer = city.request("POST", "/api/v1/rejected/replay", json={}, headers=session | headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "foreign_site"
        assert city.replayed == []


def test_a_form_of_another_site_signs_nobody_in_and_writes_nothing(city: City) -> None:
    token = issue(city, Scope.OPERATE)
    foreign = {"origin": "https://evil.example"}
    assert code(sign_in(city, token, headers=foreign)) == (403, "foreign_site")
    form = {"content-type": "application/x-www-form-urlencoded"} | SITE | cookie_of(sign_in(city, token))
    assert code(city.request("POST", "/api/v1/rejected/replay", content="{}", headers=form)) == (415, "not_json")


def test_another_site_writes_nothing_where_nobody_is_asked_for_a_token(tmp_path: Path) -> None:
    with asking_city(tmp_path, authenticate=False) as city:
        for headers, status in (({}, 200), ({"sec-fetch-site": "cross-site"}, 403), ({"origin": "http://x"}, 403)):
            answer = city.request("POST", "/api/v1/rejected/replay", json={}, headers=headers)
            assert answer.status_code == status
        assert city.get("/session").json() == {"name": "nobody", "scope": "operate", "asked": False, "cookie": False}


# ---- names of the server


@pytest.mark.parametrize(
    ("host", "status"),
    [
        pytest.param("qala.example", 200, id="its name"),
        pytest.param("QALA.example:443", 200, id="its name and a port"),
        pytest.param("localhost:8080", 200, id="this machine"),
        pytest.param("evil.example", 421, id="another name"),
        pytest.param("sub.qala.example", 421, id="a name below"),
        pytest.param("10.0.0.7", 421, id="an address that was not connected to"),
    ],
)
def test_only_names_that_are_ours_are_answered(tmp_path: Path, host: str, status: int) -> None:
    with asking_city(tmp_path, hosts=["Qala.example"]) as city:
        headers = with_token(issue(city)) | {"host": host}
        assert city.get("/zones", headers=headers).status_code == status


def test_the_address_that_was_connected_to_is_a_name_of_ours(city: City) -> None:
    headers = with_token(issue(city))
    assert city.request("GET", "http://10.0.0.7:8080/api/v1/zones", headers=headers).status_code == 200
    assert code(city.request("GET", "http://evil.example:8080/api/v1/zones", headers=headers)) == (421, "foreign_host")


# ---- who acts


@pytest.mark.parametrize(
    ("claimed", "recorded"),
    [pytest.param("Aigerim", "Aigerim (panel)", id="a person"), pytest.param("panel", "panel", id="the token itself")],
)
def test_what_a_token_does_is_recorded_with_its_name(city: City, claimed: str, recorded: str) -> None:
    city.raise_alert(make_episode("ep-1"))
    headers = with_token(issue(city, Scope.OPERATE))
    answer = city.request("POST", "/api/v1/alerts/ep-1/acknowledge", json={"actor": claimed}, headers=headers)
    assert answer.json()["acknowledged"]["actor"] == recorded


# ---- over real sockets


@contextmanager
def stream(address: str, headers: dict[str, str]) -> Iterator[Iterator[str]]:
    """Open the live stream and give its lines; it is open."""
    with httpx.stream("GET", f"{address}/api/v1/live", headers=headers, timeout=10) as response:
        assert response.status_code == 200, response.read()
        lines = response.iter_lines()
        assert next(lines).startswith("retry")
        yield lines


@pytest.mark.parametrize("how", ["token", "session", "signed out"])
def test_a_live_stream_ends_with_what_opened_it(tmp_path: Path, how: str) -> None:
    with asking_city(tmp_path) as city, city.served() as address:
        city.time_us = None
        token, other = issue(city), issue(city)
        session = cookie_of(sign_in(city, token))
        opened = with_token(token) if how == "token" else session
        with stream(address, opened) as lines, stream(address, with_token(other)) as kept:
            if how == "signed out":
                httpx.delete(f"{address}/api/v1/session", headers=session | {"origin": address})
            else:
                tokens.revoke(city.state, token.partition(".")[0], NOW)  # by another process: nobody tells this one
            began = city.now_us()
            assert all(not line.startswith("event: readings") for line in lines)
            assert city.now_us() - began < 5_000_000
            assert any(line.startswith("event: tick") for line in kept)
        assert httpx.get(f"{address}/api/v1/live", headers=opened).status_code == 401


@contextmanager
def served_over_tls(city: City, folder: Path) -> Iterator[tuple[str, httpx.Client]]:
    """Serve a city over TLS beside its plain address; give the plain one, and a client of the other."""
    authority = Authority(folder)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        over_tls = OverTls(listening, server_context(*authority.server()))
        base = f"https://127.0.0.1:{port}"
        with city.served(over_tls=over_tls) as address, httpx.Client(base_url=base, verify=authority.trust()) as client:
            yield address, client


def test_over_tls_all_is_answered_as_without_it_and_browsers_are_told_to_stay(tmp_path: Path) -> None:
    with asking_city(tmp_path, hosts=["qala.example"]) as city, served_over_tls(city, tmp_path) as (address, client):
        headers = with_token(issue(city)) | {"host": "qala.example"}
        answer = client.get("/api/v1/zones", headers=headers)
        assert answer.status_code == 200
        assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY
        assert "strict-transport-security" not in client.get("/api/v1/health").headers, "localhost is of others too"
        plain = httpx.get(f"{address}/api/v1/zones", headers=headers)
        assert (plain.status_code, plain.headers.get("strict-transport-security")) == (200, None)
        assert client.get("/api/v1/zones").status_code == 401


def test_frames_show_a_token(city: City) -> None:
    city.read("city/air-1:pm2_5", [NOW - HOUR], [12.5])
    with city.served() as address:
        with closing(Frames(address, token=issue(city))) as frames:
            assert list(frames.readings(device="city/air-1")["value"]) == [12.5]
        with closing(Frames(address)) as stranger, pytest.raises(UnavailableError, match="a token is needed"):
            stranger.readings(device="city/air-1")


SECURITY = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "strict-transport-security": HSTS,
    "server": None,
}


def test_the_policy_of_contents_lets_in_our_own_alone() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in CSP.split(";"))
    assert rules["default-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["object-src"] == "'none'"
    assert "unsafe" not in CSP


def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    with asking_city(tmp_path) as city, served_over_tls(city, tmp_path) as (_, client):
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        plain = socket.create_connection(("127.0.0.1", client.base_url.port or 0))
        with plain, pytest.raises(ssl.SSLError):
            old.wrap_socket(plain)


def test_no_secret_is_logged_or_answered(city: City, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = issue(city, Scope.OPERATE)
    session = cookie_of(sign_in(city, token))
    secrets = [token.partition(".")[2], session["cookie"].partition("=")[2]]
    answers = [
        city.get("/zones", headers=with_token(token)),
        city.get("/zones", headers=with_token(token + "x")),
        city.get("/zones", headers=session),
        sign_in(city, token + "y"),
        city.request("POST", "/api/v1/session", json={"token": [token]}),
        city.request("POST", "/api/v1/session", json={"token": token * 10}),
        city.get("/zones", params={"token": token}, headers=with_token(token)),
    ]
    revoke(city, token)
    answers.append(city.get("/zones", headers=with_token(token)))
    told = caplog.text.replace(f"?token={token}", "") + "".join(answer.text for answer in answers)
    assert [secret for secret in secrets if secret in told] == []
    assert "a token or session that does not hold was shown from 127.0.0.1" in caplog.text


def test_the_end_of_a_token_counts_within_seconds_where_nobody_tells_the_server(city: City) -> None:
    headers = with_token(issue(city))
    assert city.get("/zones", headers=headers).status_code == 200
    tokens.revoke(city.state, headers["authorization"][7:15], NOW)
    until(lambda: city.get("/zones", headers=headers).status_code == 401, deadline_s=5)
