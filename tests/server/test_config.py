"""Settings: defaults, what is refused, and that a refusal names its variable and never a key."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "speech.example"])
def test_strangers_need_a_key_or_an_explicit_word(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_HOST", host)
    with pytest.raises(SettingsError, match=r"KW_SECRET_API_KEY or KW_API_KEYS_FILE.*KW_AUTH=off"):
        config.load()
    monkeypatch.setenv("KW_AUTH", "off")
    assert config.load().address == host
    monkeypatch.delenv("KW_AUTH")
    monkeypatch.setenv("KW_SECRET_API_KEY", "k")
    assert config.load().address == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_HOST", host)
    assert config.load().address == host


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
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        config.load()
    assert str(caught.value).startswith(f"{variable}: ")
    assert "\n" not in str(caught.value)


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
