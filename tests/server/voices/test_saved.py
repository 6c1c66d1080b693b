"""Voices that are kept in a folder: whole files, whose they are, how many, and what becomes of bad ones."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from safetensors.numpy import save

from server import log
from server.engine.reference import Reference
from server.errors import NotYourVoiceError, TooManyVoicesError, UnknownVoiceError, VoiceExistsError
from server.manifest import Manifest
from server.voices.folder import VoiceFolder
from server.voices.saved import Facts, SavedVoice, Sizes, write_voice
from tests.server.fakes import manifest_of

SIZES = Sizes(hidden=4, groups=16, codebook=2048)


def voice(name: str = "anna", **facts: Any) -> SavedVoice:
    facts = {"text": "What is said.", "created": 1_700_000_000, "model": "base", "sizes": SIZES, **facts}
    codes = None if facts["text"] is None else np.arange(5 * 16).reshape(5, 16) % 2048
    return SavedVoice(Facts(name=name, **facts), Reference(np.arange(4, dtype=np.float32), codes, facts["text"]))


def test_a_voice_survives(tmp_path: Path) -> None:
    kept = voice(description="Ä", owner="me", consent="yes", notes=("it is clipped",), seconds=3.5)
    VoiceFolder(tmp_path).add(kept)
    found = VoiceFolder(tmp_path).find("anna", "me")
    assert found is not None
    assert found.facts == kept.facts
    assert np.array_equal(found.reference.speaker, kept.reference.speaker)
    assert np.array_equal(found.reference.codes, kept.reference.codes)  # type: ignore[arg-type]
    assert found.reference.codes.dtype == np.int64  # type: ignore[union-attr]
    assert [path.name for path in tmp_path.iterdir()] == ["anna.safetensors"]


def test_a_speaker_embedding_alone_is_a_voice(tmp_path: Path) -> None:
    VoiceFolder(tmp_path).add(voice(text=None))
    found = VoiceFolder(tmp_path).find("ANNA", None)
    assert found is not None
    assert found.reference.codes is None


def test_a_voice_is_its_owners_unless_it_is_shared(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    for name, facts in {"mine": {"owner": "me"}, "ours": {"owner": "me", "shared": True}, "all": {}}.items():
        folder.add(voice(name, **facts))
    assert [found.name for found in folder.voices("me")] == ["all", "mine", "ours"]
    assert [found.name for found in folder.voices("you")] == ["all", "ours"]
    assert [found.name for found in folder.voices(None)] == ["all", "ours"]
    assert folder.find("mine", "you") is None
    with pytest.raises(UnknownVoiceError):
        folder.remove("mine", "you")
    for name, caller in (("ours", "you"), ("ours", None), ("all", "me")):
        with pytest.raises(NotYourVoiceError):
            folder.remove(name, caller)
    folder.remove("mine", "me")
    folder.remove("all", None)
    folder.remove("ours", None, by_operator=True)
    assert not list(tmp_path.iterdir())
    assert folder.voices("me") == []


def test_a_name_that_has_become_anothers_meanwhile_is_not_deleted(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    folder.add(voice(owner="me"))

    class Late:
        """A lock for which somebody waits while the voice is deleted and made anew by another one."""

        def __enter__(self) -> None:
            (tmp_path / "anna.safetensors").unlink()
            VoiceFolder(tmp_path).add(voice(owner="you"))

        def __exit__(self, *_: object) -> None:
            pass

    folder._lock = cast(threading.Lock, Late())
    with pytest.raises(UnknownVoiceError):
        folder.remove("anna", None)
    assert folder.find("anna", "you")


def test_a_name_is_taken_whosever_and_however_it_is_written(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    folder.add(voice(owner="me"))
    for name, owner in (("anna", "me"), ("Anna", "you"), ("ANNA", None)):
        with pytest.raises(VoiceExistsError):
            folder.add(voice(name, owner=owner))
    (tmp_path / "eve.safetensors").write_bytes(b"")
    with pytest.raises(VoiceExistsError):
        folder.add(voice("eve"))
    assert (tmp_path / "eve.safetensors").read_bytes() == b""


def test_there_are_so_many_and_no_more(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path, most=3, most_of_one=2)
    folder.add(voice("a", owner="me"))
    folder.add(voice("b", owner="me"))
    with pytest.raises(TooManyVoicesError, match="2 voices of this key"):
        folder.add(voice("c", owner="me"))
    folder.add(voice("c", owner="you"))
    with pytest.raises(TooManyVoicesError, match="there are 3 voices,"):
        folder.add(voice("d", owner="them"))
    folder.remove("a", "me")
    folder.add(voice("d", owner="them"))


def test_side_by_side_only_one_gets_a_name(tmp_path: Path) -> None:
    folders = [VoiceFolder(tmp_path) for _ in range(8)]
    outcomes: list[str] = []

    def add(number: int) -> None:
        try:
            folders[number].add(voice(description=str(number)))
            outcomes.append(str(number))
        except VoiceExistsError:
            pass

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = VoiceFolder(tmp_path).find("anna", None)
    assert found is not None
    assert outcomes == [found.facts.description]


def test_files_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    assert folder.voices(None) == []
    (tmp_path / "bob.safetensors").write_bytes(write_voice(voice("bob")))
    assert [found.name for found in folder.voices(None)] == ["bob"]
    os.utime(tmp_path, (1_700_000_000, 1_700_000_000))  # it has settled
    assert [found.name for found in folder.voices(None)] == ["bob"]
    (tmp_path / "bob.safetensors").unlink()
    assert folder.voices(None) == []


def test_a_file_that_is_copied_slowly_is_read_once_it_is_whole(tmp_path: Path) -> None:
    folder, path, content = VoiceFolder(tmp_path), tmp_path / "anna.safetensors", write_voice(voice())
    path.write_bytes(content[:300])
    os.utime(tmp_path, (1_700_000_000, 1_700_000_000))  # the folder has settled; its time does not change any more
    assert folder.find("anna", None) is None
    with path.open("ab") as stream:
        stream.write(content[300:])
    assert folder.find("anna", None) is not None


def test_a_folder_that_goes_away_takes_its_voices(tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path / "voices")
    assert folder.voices(None) == []
    (tmp_path / "voices").mkdir()
    folder.add(voice())
    (tmp_path / "voices").rename(tmp_path / "elsewhere")
    assert folder.voices(None) == []


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        VoiceFolder(tmp_path).add(voice())
    assert not list(tmp_path.iterdir())


def assert_one_is_kept_and_none_replaced(place: Path) -> None:
    folder = VoiceFolder(place)
    folder.add(voice())
    (place / "eve.safetensors").write_bytes(b"")
    with pytest.raises(VoiceExistsError):
        folder.add(voice("eve"))
    assert sorted(path.name for path in place.iterdir()) == ["anna.safetensors", "eve.safetensors"]


def test_without_hard_links_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert_one_is_kept_and_none_replaced(tmp_path)


def test_on_windows_it_is_renamed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a name that another file has is an error by itself, and a folder on a stick has no hard links."""

    def rename(path: Path, target: Path) -> Path:
        if target.exists():
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists")
        os.replace(path, target)  # noqa: PTH105  (the method is the one that is replaced here)
        return target

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "link")
    monkeypatch.setattr(Path, "rename", rename)
    assert_one_is_kept_and_none_replaced(tmp_path)


def file_of(tensors: dict[str, Any] | None = None, **facts: Any) -> bytes:
    """A voice's file with other tensors or facts."""
    good = voice()
    kept = {"speaker": good.reference.speaker, "codes": np.zeros((5, 16), np.int32)}
    about = {**json.loads(good.facts.model_dump_json()), **facts}
    return save(
        {name: value for name, value in {**kept, **(tensors or {})}.items() if value is not None},
        {"voice": json.dumps(about)},
    )


BAD = {
    "nothing": b"",
    "garbage": b"\xff" * 100,
    "a huge header": (2**60).to_bytes(8, "little") + b"{}",
    "no metadata": save({"speaker": np.zeros(4, np.float32)}),
    "too long": file_of({"more": np.zeros(300_000, np.uint8)}),
    "another name": file_of(name="bob"),
    "a name with a path": file_of(name="../anna"),
    "another format": file_of(format=2),
    "no speaker": file_of({"speaker": None}),
    "another size": file_of({"speaker": np.zeros(5, np.float32)}),
    "not finite": file_of({"speaker": np.full(4, np.nan, np.float32)}),
    "codes and no text": file_of(text=None),
    "a text and no codes": file_of({"codes": None}),
    "codes of another shape": file_of({"codes": np.zeros((5, 15), np.int32)}),
    "codes of another type": file_of({"codes": np.zeros((5, 16), np.float32)}),
    "codes out of range": file_of({"codes": np.full((5, 16), 2048, np.int32)}),
    "negative codes": file_of({"codes": np.full((5, 16), -1, np.int32)}),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_bad_file_costs_itself_alone(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "event", lambda name, **fields: told.append(f"{name} {fields['file']}"))
    (tmp_path / "bob.safetensors").write_bytes(write_voice(voice("bob")))
    (tmp_path / "anna.safetensors").write_bytes(content)
    folder = VoiceFolder(tmp_path)
    assert [found.name for found in folder.voices(None)] == ["bob"]
    assert [found.name for found in folder.voices(None)] == ["bob"]
    assert told == ["voice_left_out anna.safetensors"]


def test_a_file_whose_name_means_another_voice_is_left_out_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "event", lambda name, **fields: told.append(f"{name} {fields['file']} {fields['reason']}"))
    for name in ("Alloy", "anna"):
        (tmp_path / f"{name}.safetensors").write_bytes(write_voice(voice(name)))
    folder = VoiceFolder(tmp_path)
    folder.reserve(lambda name: name.lower() == "alloy")
    for _ in range(3):
        assert folder.find("alloy", None) is None
        assert [found.name for found in folder.all()] == ["anna"]
    assert told == ["voice_left_out Alloy.safetensors Alloy is a voice of the server itself, which goes before it"]
    with pytest.raises(VoiceExistsError, match="of the server itself"):
        folder.add(voice("alloy"))


def test_the_good_file_is_read(tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    (tmp_path / "anna.safetensors").write_bytes(file_of())
    assert VoiceFolder(tmp_path).find("anna", None) is not None


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"model_type": "custom_voice"}, False),
        ({"talker": {"hidden_size": 8, "num_heads": 2}}, False),
        ({"codec": {"codebook_size": 4096}}, False),
    ],
)
def test_a_voice_fits_models_of_its_sizes(changes: dict[str, Any], fits: bool) -> None:
    described = manifest_of("base", model_type="base", speakers={})
    for name, values in changes.items():
        if isinstance(values, dict):
            described["sizes"][name] |= values
        else:
            described[name] = values
    assert voice().fits(Manifest.model_validate_json(json.dumps(described))) == fits


@pytest.mark.parametrize("name", ["../anna", "a/b", ".anna", "anna.", "", "a" * 65, "anna*2", "ä", "a b", "con:"])
def test_a_name_with_more_than_a_name_is_no_voice(name: str, tmp_path: Path) -> None:
    folder = VoiceFolder(tmp_path)
    folder.add(voice())
    assert folder.find(name, None) is None
    with pytest.raises(ValueError, match="name"):
        voice(name)


def test_what_has_been_looked_for_is_found_without_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 files that had come were read by the event loop for 17 ms and more, and asked for by each request for 2 ms
    while the folder changed."""
    read: list[bool] = []
    read_folder = VoiceFolder._read

    def note(self: VoiceFolder, folder: Path) -> None:
        read.append(threading.current_thread() is threading.main_thread())
        read_folder(self, folder)

    monkeypatch.setattr(VoiceFolder, "_read", note)
    folder = VoiceFolder(tmp_path)

    async def test() -> None:
        await folder.look()
        assert folder.find("anna", None) is None
        assert not folder.voices(None)
        (tmp_path / "anna.safetensors").write_bytes(write_voice(voice()))
        await folder.look()
        assert folder.find("anna", "me") is not None
        assert [kept.name for kept in folder.all()] == ["anna"]
        assert folder.changes == 1
        os.utime(tmp_path, (1e9, 1e9))
        os.utime(tmp_path / "anna.safetensors", (1e9, 1e9))
        await folder.look()
        assert len(read) == 3
        await folder.look()
        assert len(read) == 3, "a folder that is settled is not read again"

    asyncio.run(test())
    assert not any(read), "the event loop's thread reads nothing"
    folder.remove("anna", None)
    assert folder.find("anna", "me") is None, "what the server changes itself is known at once"
    folder.add(voice())
    assert folder.find("anna", "me") is not None
