"""Writes URLs, e-mail addresses, host names, file names, paths, versions and IP addresses as they are read out.

`spoken_links` suits every model: nobody's prose holds a bare URL. `spoken_names` is for models that cannot read the
marks in names: others read `report.pdf` and `1.2.3` well, as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from server.text.word_set import word_set

_WORDS: dict[str, dict[str, str]] = {
    "en": {".": "dot", "/": "slash", "@": "at", "-": "dash", "_": "underscore"},
    "zh": {".": "点", "/": "斜杠", "@": "艾特", "-": "横杠", "_": "下划线"},
    "ja": {".": "ドット", "/": "スラッシュ", "@": "アットマーク", "-": "ハイフン", "_": "アンダーバー"},
    "ko": {".": "닷", "/": "슬래시", "@": "골뱅이", "-": "하이픈", "_": "언더바"},
    "de": {".": "Punkt", "/": "Schrägstrich", "@": "at", "-": "Bindestrich", "_": "Unterstrich"},
    "fr": {".": "point", "/": "barre oblique", "@": "arobase", "-": "tiret", "_": "tiret bas"},
    "ru": {".": "точка", "/": "слэш", "@": "собака", "-": "дефис", "_": "нижнее подчёркивание"},
    "pt": {".": "ponto", "/": "barra", "@": "arroba", "-": "hífen", "_": "sublinhado"},
    "es": {".": "punto", "/": "barra", "@": "arroba", "-": "guion", "_": "guion bajo"},
    "it": {".": "punto", "/": "barra", "@": "chiocciola", "-": "trattino", "_": "trattino basso"},
}
"""How the marks of an address are read, by ISO 639-1 code of the language."""
_MORE_ENGLISH = {
    "?": "question mark", "=": "equals", "&": "and", "#": "hash", "~": "tilde", ":": "colon", "+": "plus", "%":
    "percent",
    "\\": "backslash",
}  # fmt: skip

_URL = re.compile(
    r"(?i:(?<![A-Za-z0-9])(?:https?|ftp)://|(?<![\w.@/])www\.)"
    r"(?:[-.~:/?#\[\]@!$&'()*+,;=%]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]){1,2000}"
)
_EMAIL = re.compile(
    r"(?<![\w.%+-])(?:mailto:)?(?P<name>[\w.%+-]{1,64})@(?P<host>[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8})"
)
_SCHEME = re.compile(r"(?i)^(?:https?|ftp)://(?:www\.(?=[^/]*\.))?|^www\.")
_AFTER_A_URL = ".,;:!?'*"

_TOKEN = re.compile(r"[^\s,;!?\"'()<>\[\]{}|`“”‘’]+")
_VERSION = re.compile(r"(?P<v>[vV]?)(?P<numbers>\d{1,5}(?:\.\d{1,5}){2,4})(?P<suffix>(?:-?[a-z]{1,5}\d{0,3})?)")
_IP = re.compile(r"(?P<host>\d{1,3}(?:\.\d{1,3}){3})(?::(?P<port>\d{1,5})|/(?P<bits>\d{1,2}))?")
_DAY = re.compile(r"(?:0?[1-9]|[12]\d|3[01])\.(?:0?[1-9]|1[0-2])\.(?:\d{2}|[12]\d{3})")
_PHONE = re.compile(r"(?:1\.)?\d{3}\.\d{3}\.\d{4}")
_DOMAINS = word_set("com org net edu gov io dev app ai co uk de fr es it pt ru jp kr cn eu info example local tv me")
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,6}(?P<domain>[a-z]{2,7})(?::\d{1,5})?(?P<path>/[\w./~%-]*)?")
_SPELT = word_set(
    "cc cfg cpp css csv db dll exe gif gz hpp html ini jpg js md mp3 mp4 pdf php pgp png ppt pptx py rb rs sh sql "
    "svg tar ts tsv ttf txt wav xls xlsx xml"
)
_SAID = word_set("bat bin bak conf doc docx jar java jpeg json lock log onnx toml webp yaml yml zip")
_FILE = re.compile(r"(?P<stem>[\w+~-]{1,100}(?:\.[\w+~-]{1,60}){0,3})\.(?P<ending>[A-Za-z][A-Za-z0-9]{0,4})")
_PATH = re.compile(r"(?:~|\.{1,2})?/[A-Za-z][\w.+~-]*(?:/[\w.+~-]+)*/?|[A-Za-z]:\\[\w .+~\\-]*")
_FOLDER = re.compile(r"\b(?:src|tmp|usr)\b")
_FOLDERS = {"src": "source", "tmp": "temp", "usr": "user"}
_DIGITS = re.compile(r"\d+")


def spoken_links(text: str, language: str | None) -> str:
    """URLs and e-mail addresses as they are read out: `https://example.org/a/` is `example dot org slash a`.

    Args:
        text: of any kind.
        language: ISO 639-1 code. Where its words are not known here, or it is None, a URL loses its scheme and its last
            slash, and the rest stands as it is.
    """
    words = _words(language)
    text = _URL.sub(lambda found: _url(found[0], words), text)
    return _EMAIL.sub(lambda found: _read(f"{found['name']}@{found['host']}", words), text) if words else text


def spoken_names(text: str, language: str | None) -> str:
    """Host names, file names, paths, versions and IP addresses as they are read out, in English.

    In other languages the text stands as it is.
    """
    return _TOKEN.sub(_name, text) if language == "en" else text


def _words(language: str | None) -> Mapping[str, str]:
    words = _WORDS.get(language or "", {})
    return words | _MORE_ENGLISH if language == "en" else words


def _url(url: str, words: Mapping[str, str]) -> str:
    bare = url.rstrip(_AFTER_A_URL)
    while bare.endswith((")", "]")) and bare.count(bare[-1]) > bare.count("(" if bare[-1] == ")" else "["):
        bare = bare[:-1].rstrip(_AFTER_A_URL)
    address = unquote(_SCHEME.sub("", bare)).rstrip("/")
    if not address:
        return url
    return (_read(address, words) if words else address) + url[len(bare) :]


def _read(address: str, words: Mapping[str, str]) -> str:
    """Write a word for every mark of an address; a mark without a word becomes a blank."""
    parts = (character if character.isalnum() else f" {words.get(character, '')} " for character in address)
    return " ".join("".join(parts).split())


_ENGLISH = _words("en")


def _name(token: re.Match[str]) -> str:
    whole = token[0]
    name = whole.rstrip(".:*") if len(whole) <= 300 else ""
    if not any(mark in name for mark in "./\\"):
        return whole
    for pattern, say in _KINDS:
        if (found := pattern.fullmatch(name)) and (said := say(found)) is not None:
            return said + whole[len(name) :]
    return whole


def _ip(found: re.Match[str]) -> str | None:
    if any(int(part) > 255 for part in found["host"].split(".")):
        return None
    port = f" port {found['port']}" if found["port"] else ""
    bits = f" slash {found['bits']}" if found["bits"] else ""
    return found["host"].replace(".", " dot ") + port + bits


def _version(found: re.Match[str]) -> str | None:
    if _DAY.fullmatch(found[0]) or _PHONE.fullmatch(found[0]):
        return None
    suffix = f" {_read(found['suffix'], {})}" if found["suffix"] else ""
    return ("version " if found["v"] else "") + found["numbers"].replace(".", " point ") + suffix


def _host(found: re.Match[str]) -> str | None:
    if found["domain"] not in _DOMAINS:
        return None
    return _read(_SCHEME.sub("", found[0]).rstrip("/"), _ENGLISH)


def _file(found: re.Match[str]) -> str | None:
    ending = found["ending"].lower()
    if ending not in _SPELT | _SAID:
        return None
    said = " ".join(ending.upper()) if ending in _SPELT else ending
    return f"{_read(found['stem'], _ENGLISH)} dot {said}"


def _path(found: re.Match[str]) -> str | None:
    folder, _, last = found[0].rstrip("/\\").rpartition("/")
    if (file := _FILE.fullmatch(last)) and (said := _file(file)):
        return f"{_folders(folder + '/')} {said}".strip()
    return _folders(found[0].rstrip("/\\"))


def _folders(path: str) -> str:
    return _FOLDER.sub(lambda it: _FOLDERS[it[0]], _read(path, _ENGLISH))


def _relative(found: re.Match[str]) -> str | None:
    said = _file(file) if (file := _FILE.fullmatch(found["last"])) else None
    return f"{_folders(found['folder'])} {said}" if said else None


_RELATIVE = re.compile(r"(?P<folder>[A-Za-z][\w.+~-]*/(?:[\w.+~-]+/)*)(?P<last>[\w.+~-]+)")
_KINDS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str | None]], ...] = (
    (_IP, _ip),
    (_VERSION, _version),
    (_FILE, _file),
    (_PATH, _path),
    (_RELATIVE, _relative),
    (_HOST, _host),
)
