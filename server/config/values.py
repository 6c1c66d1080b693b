"""The types of settings, which read what people write, and the default of the models folder."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field
from pydantic_settings import NoDecode

from server.config.addresses import ANY, IpNetwork, host_of, origin_of
from server.manifest import MANIFEST_NAME

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded"
"""Where a wheel has the embedded model; a checkout has it in `models` instead."""


def default_models_dir() -> Path:
    """Find `models` of the checkout that this package lies in, else of the working directory, else the embedded one.

    The folder of the working directory counts only if it holds bundles, because other projects have one of this name.
    """
    checkout, here = EMBEDDED.parent.parent / "models", Path.cwd() / "models"
    if not EMBEDDED.is_dir():
        return checkout if checkout.is_dir() else here
    return here if any(here.glob(f"*/{MANIFEST_NAME}")) else EMBEDDED


def fetched_models_dir(models_dir: Path) -> Path:
    """Return the folder that bundles are fetched into: the models folder, but never the inside of this package."""
    return Path.cwd() / "models" if models_dir == EMBEDDED else models_dir


def unquoted(text: str) -> str:
    """Remove blanks and one pair of quotes, which a shell takes away and `docker run --env-file` leaves."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] in "\"'" and text[-1] == text[0] and text[0] not in text[1:-1]
    return text[1:-1].strip() if quoted else text


def words(value: Any) -> Any:
    """Split a text at its commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _switch(value: Any) -> Any:
    """Turn the ways in which people and YAML write a switch into `on` or `off`."""
    return {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}.get(
        str(value).lower(), value
    )


def _keys(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    keys = tuple(filter(None, map(unquoted, unquoted(value).split(","))))
    if not keys:
        raise ValueError("holds no key; leave it unset to run without one")
    return keys


def _origins(value: Any) -> Any:
    return tuple(origin if origin == ANY else origin_of(origin) for origin in words(value))


def _host(value: Any) -> Any:
    return host_of(value) if isinstance(value, str) and value.strip() else ""


def _hosts(value: Any) -> Any:
    return tuple(host_of(host) for host in words(value))


def _hosts_or_any(value: Any) -> Any:
    return tuple(host if host == ANY else host_of(host) for host in words(value))


def _networks(value: Any) -> Any:
    return tuple(ipaddress.ip_network(one) for one in words(value))  # its errors name what is none


def _aliases(value: Any) -> Any:
    pairs = tuple(tuple(part.strip() for part in pair.split("=")) for pair in words(value))
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            raise ValueError(f"{'='.join(pair)} is not NAME=MODEL; write such pairs, comma-separated")
    return pairs


def _place(value: str) -> str:
    try:
        place = urlsplit(value)
        good = place.scheme == "tcp" and place.hostname and place.port is not None and not place.path.strip("/")
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{value} is not tcp://HOST:PORT")
    return value


def _folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError(f"{value} is not a folder")
    return value


def _memory(value: ByteSize) -> ByteSize:
    if value <= 0:
        raise ValueError("must be more than nothing; leave it unset for no limit")
    return value


Switch = Annotated[Literal["on", "off"], BeforeValidator(_switch)]
Seconds = Annotated[float, Field(ge=0, le=366 * 24 * 3600, allow_inf_nan=False)]
Memory = Annotated[ByteSize, AfterValidator(_memory)]
Folder = Annotated[Path, AfterValidator(_folder)]
"""One that exists."""
Host = Annotated[str, BeforeValidator(_host)]
"""An address or a name, in one form; empty is none."""
Place = Annotated[str, AfterValidator(_place)]
"""Where a protocol over TCP is spoken: `tcp://HOST:PORT`."""
# These are lists, separated by commas.
Keys = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_keys)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)]
Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_hosts)]
HostsOrAny = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_hosts_or_any)]
Networks = Annotated[tuple[IpNetwork, ...], NoDecode, BeforeValidator(_networks)]
Aliases = Annotated[tuple[tuple[str, str], ...], NoDecode, BeforeValidator(_aliases)]
"""Pairs of a name and what it means."""
