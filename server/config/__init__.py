"""The settings: environment variables `KW_...`, which are read once at start and passed on as values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ByteSize, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.config.addresses import resolves_to_loopback
from server.config.values import (
    Aliases,
    Folder,
    Host,
    Hosts,
    HostsOrAny,
    Keys,
    Memory,
    Networks,
    Origins,
    Place,
    Seconds,
    Switch,
    default_models_dir,
)
from server.errors import first_fault
from server.manifest import Precision

PREFIX = "KW_"


class SettingsError(ValueError):
    """A setting cannot be used; the message names its variable."""


_SECRET = re.compile("KEY|SECRET|TOKEN|PASSWORD|AUTH")


class Settings(BaseSettings):
    """What an operator can choose; an empty variable counts as not set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
        extra="ignore",
        validate_default=False,
    )

    secret_api_key: Keys = Field(
        default=(),
        repr=False,
        description="API keys, comma-separated. Without one, here or in a file, the server listens on loopback only.",
    )
    secret_api_key_file: Path | None = Field(
        default=None,
        description="File that holds what KW_SECRET_API_KEY would, such as a secret mounted into a container.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File of more keys, as labelled hashes: `qwen3-tts keys` makes and edits it, and a running server "
        "reads it again when it changes.",
    )
    max_requests_per_key: int = Field(
        default=0, ge=0, le=100_000, description="Speech requests that one key may have under way; 0 is no limit."
    )
    api_key_in_query: Switch = Field(
        default="off",
        description="Whether a WebSocket's key may be in its address, ?api_key=KEY, for clients that can set neither "
        "its headers nor its subprotocols. Proxies write addresses into their logs.",
    )
    auth: Literal["on", "off"] = Field(
        default="on", description="`off` serves everyone without a key, even where others can reach the server."
    )
    host: Host = Field(
        default="",
        description="Address to listen on, or a name, which stands for all its addresses. :: listens on IPv4 too.",
        json_schema_extra={"default": "0.0.0.0 with a key, else 127.0.0.1"},
    )
    port: int = Field(default=3000, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    cors_origins: Origins = Field(
        default=(),
        description="Origins whose pages may call the API from a browser, comma-separated, such as "
        "https://app.example; * allows all.",
    )
    allowed_hosts: HostsOrAny = Field(
        default=(),
        description="Names, comma-separated, by which a server without keys may be asked, beside localhost and "
        "KW_HOST, such as the name of a proxy before it; * allows all.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Addresses or networks of proxies, comma-separated, whose X-Forwarded-For the log believes.",
    )
    max_connections: int = Field(
        default=512,
        ge=1,
        le=1_000_000,
        description="Most open connections; fewer where the limit of file descriptors leaves less room. When one more "
        "comes, the oldest without a request under way is closed; if each has a request, the new one is "
        "answered 503.",
    )
    max_sockets: int = Field(
        default=64,
        ge=0,
        le=100_000,
        description="Most open WebSockets, each of which is a connection too; one more is answered 503.",
    )
    socket_idle_seconds: Seconds = Field(
        default=30,
        description="Seconds without a message after which a WebSocket on which nothing is spoken is closed; 0 is "
        "never.",
    )
    text_wait_seconds: Seconds = Field(
        default=10,
        gt=0,
        description="Seconds that a row waits for more of a text that is spoken token by token. Then the row ends, "
        "and later text begins another one. While other requests wait for a row it is 1 second.",
    )
    wyoming_uri: Place | None = Field(
        default=None,
        description="Address at which Home Assistant's protocol, Wyoming, is served beside HTTP, such as "
        "tcp://0.0.0.0:10200. The protocol has no keys: everyone who can reach the address may use it.",
    )
    wyoming_announce: Switch = Field(
        default="on", description="Whether zeroconf announces Wyoming on the local network."
    )
    models_dir: Folder = Field(
        default_factory=default_models_dir,
        description="Folder that holds one folder per model bundle.",
        json_schema_extra={
            "default": "models/ of the checkout; where the package is installed without one, models/ of the working "
            "directory if it holds bundles, else the embedded model"
        },
    )
    model: str | None = Field(
        default=None,
        description="Id (folder name) of the default model, which loads at start, or OWNER/NAME or "
        "OWNER/NAME@PRECISION, the Hub repository that `qwen3-tts pull` had it from.",
        json_schema_extra={
            "default": "the first, in alphabetical order, that can be read; one that only clones voices comes last"
        },
    )
    pull: Switch = Field(
        default="off",
        description="Whether the server fetches the bundle that KW_MODEL names as OWNER/NAME if it is not there yet. "
        "The server answers meanwhile, and /readyz shows the progress. HF_ENDPOINT and HF_TOKEN are used.",
    )
    model_aliases: Aliases = Field(
        default=(),
        description="More names of models, NAME=MODEL, comma-separated, such as tts-1-hd=qwen3_tts_1_7b_customvoice.",
    )
    precision: Precision | None = Field(
        default=None,
        description="fp32, int8, w8a8, mixed, int4, bf16, fp16 or int4_bf16: the model id `ID` means the bundle "
        "`ID_PRECISION` where that lies beside it.",
    )
    voices_file: Path | None = Field(
        default=None,
        description='JSON file of voice profiles beside the built-in ones: {"profiles": {"ID": {"speaker": ...}}}.',
    )
    voices_dir: Folder | None = Field(
        default=None,
        description="Folder in which cloned voices are kept, a file each. Without one, each request brings its own "
        "recording.",
    )
    max_voices: int = Field(
        default=1000, ge=0, le=100_000, description="Most voices in KW_VOICES_DIR; each is a file of at most 256 KB."
    )
    max_voices_per_key: int = Field(
        default=100,
        ge=0,
        le=100_000,
        description="Most voices that one key, or all callers without a key together, may keep there.",
    )
    voice_consent: Literal["ask", "assumed"] = Field(
        default="ask",
        description="ask: whoever uploads a voice has to say that its speaker agreed. assumed: the operator answers "
        "for all speakers.",
    )
    max_reference_seconds: float = Field(
        default=30,
        ge=1,
        le=59,
        description="Longest recording that a voice is cloned from, in seconds. Longer ones take more memory and time.",
    )
    max_reference: ByteSize = Field(
        default=ByteSize(10_000_000),
        ge=100_000,
        le=50_000_000,
        description="Largest file of such a recording.",
        json_schema_extra={"default": "10MB"},
    )
    reference_hosts: Hosts = Field(
        default=(),
        description="Hosts, comma-separated, from which recordings are fetched by http or https. Where a host has an "
        "address that is not public, that address has to be listed as well: files.home,192.168.1.7.",
    )
    reference_dir: Folder | None = Field(
        default=None, description="Folder of recordings that a request may name as file://NAME."
    )
    mark_synthetic: Switch = Field(
        default="on",
        description="Whether MP3, WAV, FLAC and Opus files say in their metadata that they are synthetic speech.",
    )
    lexicon_file: Path | None = Field(
        default=None,
        description='JSON file of a pronunciation dictionary, whole words and what to say instead: {"WORD": "say"}, or '
        '{"WORD": {"say": "...", "any_case": true}} to match the word in any case.',
    )
    execution_provider: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="ONNX Runtime's execution provider. auto takes CUDA for bf16, fp16 and int4_bf16 bundles if CUDA "
        "starts, else the CPU, with a line in the log; cuda does not fall back.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="CPU threads of the engine. 0 is one for each physical core that this process may use, by its "
        "affinity mask and its container's CPU quota. No more are started than it has processors.",
    )
    max_rows: int = Field(
        default=4,
        ge=1,
        le=1024,
        description="Rows computed side by side. A short text takes one row, a long one several.",
    )
    stream: Switch = Field(
        default="on",
        description="Whether audio is sent while it is made if a request does not say. off sends whole files, with "
        "their length.",
    )
    max_queue: int = Field(
        default=16, ge=0, le=100_000, description="Requests that may wait for a row; one more is answered 429."
    )
    max_input_chars: int = Field(
        default=100_000, ge=1, le=1_000_000, description="Longest `input` and `instructions`, in characters."
    )

    max_prompt: int = Field(
        default=1024,
        ge=64,
        le=32_768,
        description="Longest prompt, in positions: the tokens of a chunk of text and those of the instructions, which "
        "may take half of it. A longer one is answered 400.",
    )
    max_frames: int = Field(
        default=2048,
        ge=16,
        le=32_768,
        description="Most codec frames, 80 ms each, that a row may make: of one chunk of a long text, or of "
        "`exact_frames`. With KW_MAX_PROMPT it bounds a row's memory.",
    )
    max_file: ByteSize = Field(
        default=ByteSize(40_000_000),
        ge=1_000_000,
        description="Largest file that is sent whole, and the most that all such files under way take together. The "
        "error of a larger one says to stream it.",
        json_schema_extra={"default": "40MB"},
    )

    model_memory: Memory | None = Field(
        default=None,
        description="Most memory that all loaded models may take together, such as 6GB, counted as their graphs and "
        "the KV caches of KW_MAX_ROWS rows. A GPU's memory does not count. When another model needs room, "
        "the least recently used idle one is unloaded.",
        json_schema_extra={"default": "no limit"},
    )
    idle_unload_seconds: Seconds = Field(
        default=0,
        description="Seconds after which a model that nobody uses is unloaded; the next request for it loads it "
        "again. 0 is never.",
    )
    load_wait_seconds: Seconds = Field(
        default=60,
        description="Seconds that a request waits until its model is loaded, or until there is room for it, before it "
        "is answered 503 with Retry-After; 0 answers at once.",
    )
    request_timeout: Seconds = Field(
        default=120,
        description="Seconds without progress after which a request is ended, with a 504 or a stream that breaks off, "
        "and its row freed. No progress means that the engine makes nothing for it, or that its client "
        "takes nothing, or on average less than a quarter of playing speed. Waiting in the queue while "
        "others get on does not count. A client that takes longer to send its request is answered 408. 0 "
        "is never.",
    )
    drain_delay_seconds: Seconds = Field(
        default=0,
        description="Seconds after SIGTERM or SIGINT in which the server goes on as before while /readyz is 503, so "
        "that a load balancer sends no more.",
    )
    drain_seconds: Seconds = Field(
        default=8,
        description="Seconds after that in which requests under way may finish; a second signal ends them at once. "
        "Container runtimes kill after 10 seconds unless told otherwise.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_secrets(cls, values: dict[str, Any]) -> dict[str, Any]:
        file = values.get("secret_api_key_file")
        if not file:
            return values
        if values.get("secret_api_key"):
            raise ValueError(f"{PREFIX}SECRET_API_KEY and {PREFIX}SECRET_API_KEY_FILE are both set; set one of them")
        try:
            kept = ",".join(Path(file).read_text("utf-8-sig").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            raise ValueError(f"{PREFIX}SECRET_API_KEY_FILE: {file}: {reason}") from None
        return {**values, "secret_api_key": kept}

    @model_validator(mode="after")
    def _keep_strangers_out(self) -> Self:
        if not self.host or self.requires_key or self.auth == "off":
            return self
        try:
            alone = resolves_to_loopback(self.host)
        except ValueError as error:
            raise ValueError(f"{PREFIX}HOST: {error}") from None
        if not alone:
            raise ValueError(
                f"{PREFIX}HOST={self.host} can be reached by others, but there is no key: "
                f"set {PREFIX}SECRET_API_KEY or {PREFIX}API_KEYS_FILE, or {PREFIX}AUTH=off to serve everyone"
            )
        return self

    @property
    def requires_key(self) -> bool:
        """Whether requests need a key."""
        return self.auth == "on" and bool(self.secret_api_key or self.api_keys_file)

    @property
    def address(self) -> str:
        """The address to listen on: `KW_HOST`, else all interfaces if a key is needed, else loopback."""
        return self.host or ("0.0.0.0" if self.requires_key else "127.0.0.1")


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: a value is wrong; the message is one line, names the variable and never shows a key.
    """
    try:
        return Settings()
    except ValidationError as error:
        path, reason = first_fault(error)
        raise SettingsError(f"{PREFIX}{path[0].upper()}: {reason}" if path else reason) from None


def unknown_variables() -> list[str]:
    """List the variables that begin with the prefix and are not settings, such as misspelt ones."""
    known = {name for name, _, _ in describe()}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def may_hold_a_secret(variable: str) -> bool:
    """Whether the variable's name suggests that it is meant to keep strangers out."""
    return bool(_SECRET.search(variable))


def describe() -> Iterator[tuple[str, str, str]]:
    """Yield name, default and meaning of every variable, in the order of the model."""
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        default = extra["default"] if isinstance(extra, dict) else field.default
        shown = "none" if default in ((), None) else str(default)
        yield PREFIX + name.upper(), shown, field.description or ""
