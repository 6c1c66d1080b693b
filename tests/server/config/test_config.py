"""Settings: defaults, what is refused, and that a refusal names its variable and never a key."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from server import config
from server.config import SettingsError


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("KW_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KW_MODELS_DIR", str(tmp_path))


def test_without_a_key_the_server_keeps_to_loopback() -> None:
    settings = config.load()
    assert (settings.address, settings.port, settings.requires_key) == ("127.0.0.1", 3000, False)


def test_with_a_key_it_listens_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_SECRET_API_KEY", " key-1, key-2 ,,")
    settings = config.load()
    assert (settings.address, settings.requires_key, settings.secret_api_key) == ("0.0.0.0", True, ("key-1", "key-2"))
    assert "key-1" not in repr(settings)


def test_a_file_of_keys_counts_as_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_API_KEYS_FILE", "/run/keys")
    settings = config.load()
    assert (settings.address, settings.requires_key) == ("0.0.0.0", True)


def test_origins_are_taken_as_browsers_send_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load().cors_origins == ()
    monkeypatch.setenv("KW_CORS_ORIGINS", " https://App.example/ ,http://127.0.0.1:8080, *, chrome-extension://abc")
    assert config.load().cors_origins == (
        "https://app.example",
        "http://127.0.0.1:8080",
        "*",
        "chrome-extension://abc",
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_strangers_need_a_key_or_an_explicit_word(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_HOST", host)
    with pytest.raises(SettingsError, match=r"KW_SECRET_API_KEY or KW_API_KEYS_FILE.*KW_AUTH=off"):
        config.load()
    monkeypatch.setenv("KW_AUTH", "off")
    assert config.load().address == host
    monkeypatch.delenv("KW_AUTH")
    monkeypatch.setenv("KW_SECRET_API_KEY", "k")
    assert config.load().address == host


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1.2.3", "127.1.2.3"),
        ("::1", "::1"),
        ("localhost", "localhost"),
        (" 127.0.0.1 ", "127.0.0.1"),
        ("LOCALHOST", "localhost"),
        ("speech.LocalHost.", "speech.localhost"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("127.1", "127.1"),
    ],
)
def test_a_loopback_host_needs_no_key(host: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_HOST", host)
    assert config.load().address == address


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("127.0.0.1:3212", "has a port; that is KW_PORT"),
        ("nonsense.invalid", "has no address"),
        ("two words", "neither an IP address nor a name"),
        ("[::1", "neither an IP address nor a name"),
    ],
)
def test_a_host_that_there_is_not_is_told_so(host: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_HOST", host)
    with pytest.raises(SettingsError, match=says) as caught:
        config.load()
    assert str(caught.value).startswith("KW_HOST: ")
    assert "reached by others" not in str(caught.value)


@pytest.mark.parametrize(("found", "alone"), [(["127.0.0.1", "::1"], True), (["127.0.0.1", "192.0.2.7"], False)])
def test_a_name_is_as_safe_as_its_addresses(found: list[str], alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_HOST", "speech.example")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (address, 0)) for address in found])
    if alone:
        assert config.load().address == "speech.example"
    else:
        with pytest.raises(SettingsError, match=r"KW_HOST=speech\.example can be reached by others"):
            config.load()


@pytest.mark.parametrize("value", ['"k1,k2"', "'k1','k2'", ' "k1" , k2', "k1,k2\r"])
def test_quotes_that_no_shell_took_away_are_no_part_of_a_key(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_SECRET_API_KEY", value)
    assert config.load().secret_api_key == ("k1", "k2")


def test_one_quote_is_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_SECRET_API_KEY", "\"k1,k'2,'k3")
    assert config.load().secret_api_key == ('"k1', "k'2", "'k3")


def test_a_key_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("\ufeffk1\n\nk2,k3\n", "utf-8")
    monkeypatch.setenv("KW_SECRET_API_KEY_FILE", str(file))
    settings = config.load()
    assert (settings.secret_api_key, settings.requires_key) == (("k1", "k2", "k3"), True)
    assert "k1" not in repr(settings)
    monkeypatch.setenv("KW_SECRET_API_KEY", "other")
    with pytest.raises(SettingsError, match="both set"):
        config.load()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_file_without_a_key_opens_to_nobody(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("KW_SECRET_API_KEY_FILE", str(file))
    with pytest.raises(SettingsError, match=r"^KW_SECRET_API_KEY"):
        config.load()


@pytest.mark.parametrize(
    ("variable", "may"),
    [("KW_API_KEY", True), ("KW_SECRET", True), ("KW_SECRET_API_KEYS_FILE", True), ("KW_PROT", False)],
)
def test_a_variable_that_was_meant_to_keep_strangers_out(variable: str, may: bool) -> None:
    assert config.may_hold_a_secret(variable) is may


def test_trusted_proxies_are_addresses_or_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7,::1")
    assert [str(network) for network in config.load().trusted_proxies] == ["10.0.0.0/8", "192.0.2.7/32", "::1/128"]


def test_hosts_are_names_in_one_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_ALLOWED_HOSTS", " Speech.example, [2001:DB8::1],*")
    assert config.load().allowed_hosts == ("speech.example", "2001:db8::1", "*")


def test_authentication_off_does_not_open_the_door_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_SECRET_API_KEY", "k")
    monkeypatch.setenv("KW_AUTH", "off")
    settings = config.load()
    assert (settings.address, settings.requires_key) == ("127.0.0.1", False)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KW_PORT", "eighty"),
        ("KW_PORT", "65536"),
        ("KW_AUTH", "maybe"),
        ("KW_STREAM", "maybe"),
        ("KW_MODEL_ALIASES", "no pair"),
        ("KW_EXECUTION_PROVIDER", "tpu"),
        ("KW_THREADS", "-1"),
        ("KW_MAX_ROWS", "0"),
        ("KW_MAX_QUEUE", "1.5"),
        ("KW_MAX_INPUT_CHARS", "0"),
        ("KW_MODELS_DIR", "/nowhere/at/all"),
        ("KW_MODEL_MEMORY", "much"),
        ("KW_MODEL_MEMORY", "0GB"),
        ("KW_MODEL_MEMORY", "-1"),
        ("KW_IDLE_UNLOAD_SECONDS", "-1"),
        ("KW_LOAD_WAIT_SECONDS", "nan"),
        ("KW_REQUEST_TIMEOUT", "inf"),
        ("KW_DRAIN_SECONDS", "soon"),
        ("KW_SECRET_API_KEY", " , "),
        ("KW_MAX_REQUESTS_PER_KEY", "-1"),
        ("KW_CORS_ORIGINS", "app.example"),
        ("KW_CORS_ORIGINS", "https://app.example/page"),
        ("KW_CORS_ORIGINS", "https://*.example"),
        ("KW_ALLOWED_HOSTS", "https://app.example"),
        ("KW_ALLOWED_HOSTS", "*.example"),
        ("KW_TRUSTED_PROXIES", "proxy.example"),
        ("KW_MAX_CONNECTIONS", "0"),
        ("KW_DRAIN_DELAY_SECONDS", "-1"),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        config.load()
    assert str(caught.value).startswith(f"{variable}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("KW_TRUSTED_PROXIES", "proxy.example"),
        ("KW_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("KW_TRUSTED_PROXIES", "fe80::1/33"),
        ("KW_CORS_ORIGINS", "app.example"),
        ("KW_ALLOWED_HOSTS", "*.example"),
        ("KW_REFERENCE_HOSTS", "https://files.example/x"),
        ("KW_MODEL_ALIASES", "one"),
    ],
)
def test_of_a_list_the_wrong_one_is_named(variable: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {
        "KW_TRUSTED_PROXIES": "10.0.0.0/8,::1",
        "KW_CORS_ORIGINS": "https://a.example",
        "KW_MODEL_ALIASES": "a=b",
    }
    monkeypatch.setenv(variable, f"{good.get(variable, 'a.example')},{wrong}")
    with pytest.raises(SettingsError, match=re.escape(wrong)):
        config.load()


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("1000", 1000)])
def test_memory_is_written_with_a_unit(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load().model_memory is None
    monkeypatch.setenv("KW_MODEL_MEMORY", text)
    assert config.load().model_memory == size


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _, _ in config.describe():
        monkeypatch.setenv(name, "")
    assert config.load().port == 3000


def test_a_misspelt_variable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_PROT", "1")
    monkeypatch.setenv("KW_PORT", "1")
    assert config.unknown_variables() == ["KW_PROT"]


def test_every_setting_is_described() -> None:
    described = {name: (default, meaning) for name, default, meaning in config.describe()}
    assert set(described) == {f"KW_{name.upper()}" for name in config.Settings.model_fields}
    assert all(default and meaning for default, meaning in described.values())
    assert described["KW_PORT"][0] == "3000"


@pytest.mark.parametrize(
    ("value", "meant"), [("on", "on"), ("True", "on"), ("1", "on"), ("false", "off"), ("no", "off")]
)
def test_a_switch_is_read_as_people_write_it(monkeypatch: pytest.MonkeyPatch, value: str, meant: str) -> None:
    monkeypatch.setenv("KW_STREAM", value)
    assert config.load().stream == meant


@pytest.mark.parametrize(
    "value", ["10200", "unix:///run/x", "tcp://host", "tcp://:10200", "tcp://host:99999", "tcp://[x"]
)
def test_where_wyoming_is_spoken_is_a_place(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_WYOMING_URI", value)
    with pytest.raises(config.SettingsError, match=r"KW_WYOMING_URI.* tcp://HOST:PORT"):
        config.load()


def test_wyoming_may_listen_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_WYOMING_URI", "tcp://0.0.0.0:10200")
    assert config.load().wyoming_uri == "tcp://0.0.0.0:10200"
