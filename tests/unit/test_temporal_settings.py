"""Settings of the connection to Temporal: what goes together, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from agentex.cli.main import describe_wrong_settings
from agentex.settings import Settings
from agentex.temporal import explain
from tests.support.tls import Authority

CA, CERT, KEY = (f"AGENTEX_TEMPORAL_TLS_{name}_FILE" for name in ("CA", "CERT", "KEY"))
API_KEY = "AGENTEX_TEMPORAL_API_KEY"
SECRET = "tmprl-do-not-show"  # noqa: S105 - of nothing


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ours")


def wrong(monkeypatch: pytest.MonkeyPatch, **environment: object) -> list[str]:
    """The lines that a start with this environment is refused with."""
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValidationError) as caught:
        Settings()
    return describe_wrong_settings(caught.value)


def test_without_a_setting_there_is_no_tls() -> None:
    assert Settings().temporal_uses_tls is False


@pytest.mark.parametrize("name", ["temporal_tls_ca_file", "temporal_tls_server_name", "temporal_api_key"])
def test_each_setting_that_needs_tls_means_tls(authority: Authority, name: str) -> None:
    value = authority.certificate if name.endswith("file") else "value"
    assert Settings.model_validate({name: value}).temporal_uses_tls is True


def test_a_client_certificate_means_tls(authority: Authority) -> None:
    client = authority.issue("implies")
    given = {"temporal_tls_cert_file": client.certificate, "temporal_tls_key_file": client.key}
    assert Settings.model_validate(given).temporal_uses_tls is True


@pytest.mark.parametrize("name", [CA, CERT, KEY, API_KEY, "AGENTEX_TEMPORAL_TLS"])
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert Settings().temporal_uses_tls is False


def test_a_key_for_the_wire_has_no_newline() -> None:
    key = Settings.model_validate({"temporal_api_key": f"{SECRET}\n"}).temporal_api_key
    assert key is not None
    assert key.get_secret_value() == SECRET


@pytest.mark.parametrize(("given", "alone"), [(CERT, "cert"), (KEY, "key")])
def test_a_certificate_or_key_alone_names_both(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, given: str, alone: str
) -> None:
    assert wrong(monkeypatch, **{given: authority.certificate}) == [
        f"{CERT} and {KEY} are given both or not at all; the {alone} stands alone"
    ]


def test_a_key_of_another_certificate_is_refused(
    monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    assert wrong(monkeypatch, **{CERT: one.certificate, KEY: other.key}) == [
        f"{CERT} and {KEY} are not a certificate and its key (PEM, no passphrase)"
    ]


@pytest.mark.parametrize("name", [CA, CERT, KEY])
def test_a_file_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    path = str(tmp_path / "gone.pem")
    assert wrong(monkeypatch, **{name: path}) == [
        f"{name} is {path!r}: cannot be read (No such file or directory)"
    ]


def test_a_ca_file_without_a_certificate_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "empty.pem"
    path.write_text("nothing of the kind")
    assert wrong(monkeypatch, **{CA: path}) == [f"{CA} is {str(path)!r}: holds no certificate (PEM)"]


def test_an_api_key_never_travels_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(monkeypatch, **{"AGENTEX_TEMPORAL_TLS": "false", API_KEY: SECRET}) == [
        "AGENTEX_TEMPORAL_TLS is false, but AGENTEX_TEMPORAL_API_KEY needs TLS"
    ]


def test_a_wrong_api_key_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(monkeypatch, **{API_KEY: f"{SECRET}\u2026"}) == [
        f"{API_KEY} is ***: has characters that no HTTP header takes"
    ]


def test_an_api_key_is_not_in_what_is_printed_of_settings() -> None:
    settings = Settings.model_validate({"temporal_api_key": SECRET})
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize("address", ["127.0.0.1:7233", "[::1]:7233", "us-east-1.aws.api.temporal.io:7233"])
def test_an_address_is_host_and_port(address: str) -> None:
    assert Settings(temporal_address=address).temporal_address == address


@pytest.mark.parametrize(
    "address", ["", "temporal", "https://temporal:7233", "a:http", "a b:7233", "a:99999"]
)
def test_any_other_address_is_an_error(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert wrong(monkeypatch, AGENTEX_TEMPORAL_ADDRESS=address) == [
        f"AGENTEX_TEMPORAL_ADDRESS is {address!r}; it takes HOST:PORT, without a scheme"
    ]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("error: InvalidCertificate(Expired)", "has expired"),
        # A server of TLS 1.2 and of 1.3, without a client certificate and with one of a stranger's.
        ("error: AlertReceived(HandshakeFailure)", "this client certificate"),
        ("error: AlertReceived(UnknownCA)", "this client certificate"),
        ('message: "transport error", error: "received fatal alert: CertificateRequired"', "wants a client"),
        ('message: "transport error", error: "received fatal alert: UnknownCA"', "this client certificate"),
        ('ConnectError("dns error", Custom { kind: Uncategorized })', "its name is not known"),
        ("hyper::Error(Io, Kind(ConnectionReset))", "does it want TLS"),
        ('code: Cancelled, hyper::Error(Canceled, "connection closed")', "does it want TLS"),
        ("what nobody has seen yet", "what nobody has seen yet"),
    ],
)
def test_a_failed_connection_is_explained(said: str, words: str) -> None:
    assert words in explain(RuntimeError(f"Failed client connect: {said}"))
