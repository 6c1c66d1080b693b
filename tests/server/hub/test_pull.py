"""A bundle from a Hub: what is fetched, what is taken up again, what is refused, and what is left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from huggingface_hub import constants

from server import __main__ as command
from server.graphs.checking import STAMP_NAME, verify_files
from server.hub.errors import HubError
from server.hub.pull import Pull
from server.manifest import MANIFEST_NAME, read_manifest
from server.models.names import HubBundle
from server.models.origin import ORIGIN_NAME
from tests.hub_server import StandInHub
from tests.server.fakes import write_bundle
from tests.server.hub.conftest import BLOCK, LARGE, LARGE_BYTES, REPO, add_file, use
from tests.server.running import PATIENCE_SECONDS, ROOT, clean_environment

ID = "voice_fp32"
HELD = f"fp32/{LARGE}"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def pull(models: Path, precision: Any = "fp32", **options: Any) -> Path:
    return Pull(HubBundle(REPO, precision), models).run(**options)


def refused(models: Path, precision: Any = "fp32", **options: Any) -> HubError:
    with pytest.raises(HubError) as caught:
        pull(models, precision, **options)
    return caught.value


def gets(hub: StandInHub) -> Counter[str]:
    """How often each file's bytes were asked for."""
    return Counter(
        path.partition("/resolve/")[2].partition("/")[2] for method, path, _ in hub.requests if method == "GET"
    )


def test_a_bundle_is_fetched_verified_and_put_in_its_place(hub: StandInHub, models: Path) -> None:
    told: list[str] = []
    folder = pull(models, tell=told.append)
    assert folder == models / ID
    verify_files(folder, read_manifest(folder))
    listed = {*read_manifest(folder).files, MANIFEST_NAME}
    assert {path.name for path in folder.iterdir()} == {*listed, STAMP_NAME, ORIGIN_NAME}
    assert list(models.iterdir()) == [folder]
    assert hub.fetched() == {f"fp32/{name}" for name in listed}
    assert f"{len(listed) - 1} files, 1.6 MB" in told[0]


def test_what_is_there_is_not_asked_for_again_unless_it_shall_be(hub: StandInHub, models: Path) -> None:
    folder = pull(models)
    hub.requests.clear()
    assert pull(models) == folder
    assert hub.requests == []
    (folder / LARGE).write_bytes(b"other")
    pull(models, again=True)
    assert (folder / LARGE).stat().st_size == LARGE_BYTES
    assert list(models.iterdir()) == [folder]


def test_a_single_bundle_may_lie_at_the_top(hub: StandInHub, models: Path) -> None:
    for path in list((hub.folder / "fp32").iterdir()):
        path.rename(hub.folder / path.name)
    (hub.folder / "picture.png").write_bytes(b"not wanted")
    folder = pull(models)
    known = {*read_manifest(folder).files, MANIFEST_NAME, STAMP_NAME, ORIGIN_NAME}
    assert {path.name for path in folder.iterdir()} == known
    assert not {"README.md", "picture.png"} & hub.fetched()
    assert "holds a bundle of precision fp32, not int8; ask for me/Voice@fp32" in str(refused(models, "int8"))


def test_a_broken_download_goes_on_where_it_stopped(hub: StandInHub, models: Path) -> None:
    add_file(hub.folder / "fp32", LARGE, os.urandom(BLOCK + (2 << 20)))
    hub.cut[HELD] = BLOCK + (1 << 20)
    error = refused(models)
    assert error.passing
    assert "broke off" in str(error) and "run the same command again" in str(error)
    assert not (models / ID).exists()
    hub.requests.clear()
    verify_files(pull(models), read_manifest(models / ID))
    assert [asked for method, path, asked in hub.requests if method == "GET" and path.endswith(LARGE)] == [
        f"bytes={BLOCK}-"
    ]


def test_progress_is_told_while_it_comes(hub: StandInHub, models: Path) -> None:
    add_file(hub.folder / "fp32", LARGE, bytes(BLOCK + (2 << 20)))
    hub.cut[HELD] = BLOCK + (1 << 20)
    fetch = Pull(HubBundle(REPO, "fp32"), models)
    assert str(fetch.progress()) == "its size is not known yet"
    with pytest.raises(HubError):
        fetch.run()
    fetched, total = fetch.progress()
    assert total is not None and total > BLOCK + (2 << 20)
    assert BLOCK <= fetched < total


def test_a_file_that_came_damaged_is_fetched_once_more(hub: StandInHub, models: Path) -> None:
    hub.corrupt.add(HELD)
    told: list[str] = []
    verify_files(pull(models, tell=told.append), read_manifest(models / ID))
    assert f"fetched once more, as they came damaged: {LARGE}" in told
    assert gets(hub)[HELD] == 2 and gets(hub)["fp32/talker.onnx"] == 1


def test_a_bundle_with_a_wrong_hash_is_not_used(hub: StandInHub, models: Path) -> None:
    (hub.folder / HELD).write_bytes(bytes(LARGE_BYTES))
    error = refused(models)
    assert not error.passing
    assert f"does not verify, so it is not used: fp32: {LARGE} is damaged" in str(error)
    assert not (models / ID).exists()
    assert gets(hub)[HELD] == 2


def test_a_bundle_that_is_replaced_stays_until_the_new_one_is_whole(hub: StandInHub, models: Path) -> None:
    folder = pull(models)
    before = (folder / LARGE).read_bytes()
    (hub.folder / HELD).write_bytes(bytes(LARGE_BYTES))
    refused(models, again=True)
    assert (folder / LARGE).read_bytes() == before


def test_a_link_to_a_bundle_is_replaced_and_what_it_leads_to_stays(
    hub: StandInHub, models: Path, tmp_path: Path
) -> None:
    elsewhere = pull(models).rename(tmp_path / "elsewhere")
    (models / ID).symlink_to(elsewhere)
    for _ in range(2):
        pull(models, again=True)
        assert list(models.iterdir()) == [models / ID] and not (models / ID).is_symlink()
    verify_files(elsewhere, read_manifest(elsewhere))


def test_a_folder_of_that_name_that_is_no_bundle_is_replaced_only_if_it_shall_be(hub: StandInHub, models: Path) -> None:
    (models / ID).mkdir()
    notes = models / ID / "notes.txt"
    notes.write_text("mine")
    error = refused(models)
    assert "voice_fp32 that is no bundle" in str(error) and not error.passing
    assert notes.is_file() and hub.requests == []
    pull(models, again=True)
    assert not notes.exists()
    shutil.rmtree(models / ID)
    (models / ID).mkdir()  # an empty one is nobody's
    assert pull(models) == models / ID


def test_a_full_disk_is_told_before_anything_large_comes(
    hub: StandInHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1 << 20))
    error = refused(models)
    assert error.passing
    assert "69 MB in " in str(error) and "1 MB are free" in str(error)
    assert hub.fetched() == {f"fp32/{MANIFEST_NAME}"}
    write_bundle(models, ID)  # that an older one is there makes no room
    assert "69 MB in " in str(refused(models, again=True))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["model.safetensors", "config.json"],
            "a checkpoint and no ready bundle; convert it: qwen3-tts convert --model",
        ),
        (["notes.txt"], "holds no bundle"),
        (["int8/manifest.json", "bf16/manifest.json"], "has no fp32 bundle; it has me/Voice@bf16, @int8"),
    ],
)
def test_a_repository_without_the_bundle_says_what_to_do(
    hub: StandInHub, models: Path, files: list[str], message: str
) -> None:
    shutil.rmtree(hub.folder / "fp32")
    for name in files:
        (hub.folder / name).parent.mkdir(exist_ok=True)
        (hub.folder / name).write_text("{}")
    error = refused(models)
    assert message in str(error) and not error.passing
    assert hub.fetched() == set()


def edit(hub: StandInHub, **changes: Any) -> None:
    path = hub.folder / "fp32" / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "has format 99"),
        ({"precision": "int8"}, "holds a bundle of precision int8, not fp32"),
        ({"files": {"../evil": {"size": 1, "sha256": "0" * 64}}}, "does not fit this version"),
        ({"files": {"nul.onnx": {"size": 1, "sha256": "0" * 64}}}, "'nul.onnx' cannot be a file's name on Windows"),
        ({"files": {"talker.": {"size": 1, "sha256": "0" * 64}}}, "'talker.' cannot be a file's name on Windows"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_before_the_rest_comes(
    hub: StandInHub, models: Path, changes: dict[str, Any], message: str
) -> None:
    edit(hub, **changes)
    assert message in str(refused(models))
    assert hub.fetched() == {f"fp32/{MANIFEST_NAME}"}


@pytest.mark.parametrize("lacking", [True, False])
def test_files_that_lack_or_have_another_size_are_told_before_they_come(
    hub: StandInHub, models: Path, lacking: bool
) -> None:
    (hub.folder / HELD).unlink() if lacking else (hub.folder / HELD).write_bytes(b"short")
    what = "lacks" if lacking else "has another size of"
    assert f"{REPO} {what} {LARGE}" in str(refused(models))
    assert hub.fetched() == {f"fp32/{MANIFEST_NAME}"}


def test_a_gated_repository_and_a_wrong_token(hub: StandInHub, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated = "hf_right"
    assert "is gated" in str(refused(models))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    error = refused(models)
    assert "set HF_TOKEN" in str(error) and not error.passing
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert pull(models).is_dir()


def test_a_repository_that_is_unknown_or_a_hub_that_fails(hub: StandInHub, models: Path) -> None:
    with pytest.raises(HubError, match="me/Other is unknown to http://127"):
        Pull(HubBundle("me/Other", "int8"), models).run()
    with pytest.raises(HubError, match="has no revision 'v9'"):
        Pull(HubBundle(REPO, "fp32"), models, "v9").run()
    hub.broken = True
    error = refused(models)
    assert error.passing and "answered HTTP 500" in str(error)


@pytest.mark.parametrize(
    ("header", "seconds", "says"),
    [
        ("17", 17, "try again in 17 s"),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 86_400, "try again in 86400 s"),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0, "try again in 0 s"),
        ("9" * 400, 86_400, "try again in 86400 s"),
        ("soon", None, "try again later"),
    ],
)
def test_a_hub_that_is_asked_too_often_says_when_to_come_again(
    hub: StandInHub, models: Path, header: str, seconds: float | None, says: str
) -> None:
    hub.retry_after = header
    error = refused(models)
    assert error.passing and error.retry_after == seconds
    assert f"answered HTTP 429 for {REPO}; {says}" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>Sign in to this network</html>",
        [],
        "hello",
        17,
        {},
        {"id": REPO, "siblings": 5},
        {"id": REPO, "siblings": [{"size": 1}]},
        {"id": REPO, "sha": "x", "tags": [], "siblings": [{"rfilename": "fp32/manifest.json", "size": [1]}]},
    ],
)
def test_an_answer_that_is_no_answer_of_a_hub_is_told(hub: StandInHub, models: Path, answer: Any) -> None:
    hub.description = answer
    error = refused(models)
    assert not error.passing
    assert f"{hub.url} answered for {REPO} what no Hub answers" in str(error) and "check HF_ENDPOINT" in str(error)
    assert hub.fetched() == set()


def test_a_manifest_that_is_json_and_no_object_is_told(hub: StandInHub, models: Path) -> None:
    (hub.folder / "fp32" / MANIFEST_NAME).write_text("[]")
    assert "manifest.json does not fit this version" in str(refused(models))


def test_two_repositories_of_one_name_are_not_taken_for_each_other(hub: StandInHub, models: Path) -> None:
    folder = pull(models)
    other, same = HubBundle("you/Voice", "fp32"), HubBundle("ME/voice", "fp32")
    assert not Pull(other, models).is_there
    assert Pull(same, models).is_there  # the Hub takes names in any case
    before = (folder / LARGE).read_bytes()
    with pytest.raises(HubError, match=f"has a {ID} that came from {REPO}; move it away, or replace it: .* {other}"):
        Pull(other, models).run()
    assert (folder / LARGE).read_bytes() == before
    hub.repo = other.repo
    add_file(hub.folder / "fp32", LARGE, os.urandom(LARGE_BYTES))
    Pull(other, models).run(again=True)
    assert (folder / LARGE).read_bytes() != before
    assert not Pull(HubBundle(REPO, "fp32"), models).is_there and Pull(other, models).is_there
    (folder / ORIGIN_NAME).write_text("[")  # as good as none: it may be a bundle of one's own
    assert Pull(HubBundle(REPO, "fp32"), models).is_there


def test_without_network(hub: StandInHub, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        use(f"http://127.0.0.1:{taken.getsockname()[1]}", monkeypatch)
        error = refused(models)
    assert error.passing and "cannot be reached for me/Voice" in str(error)


def test_the_password_of_a_mirror_is_not_told(hub: StandInHub, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(hub.url.replace("http://", "http://me:secret@"), monkeypatch)
    hub.broken = True
    assert str(refused(models)).startswith(f"{hub.url} answered HTTP 500")


def test_an_error_of_the_library_for_large_files_may_pass(
    hub: StandInHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object, **__: object) -> None:
        raise RuntimeError("Data processing error")  # as hf_xet does

    monkeypatch.setattr("server.hub.pull.hf_hub_download", break_off)
    error = refused(models)
    assert error.passing and "the connection broke off (RuntimeError)" in str(error)


def test_offline_a_bundle_that_is_there_is_found_and_another_is_told_of(
    hub: StandInHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pull(models)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert pull(models) == folder
    assert "HF_HUB_OFFLINE is set" in str(refused(models, "int8"))
    assert hub.requests == []


def test_a_models_folder_that_cannot_be_written_to(hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(refused(tmp_path / "file")) == "file cannot be written: File exists"


def test_a_models_folder_that_is_mounted_read_only(
    hub: StandInHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: FileLock, timeout: float = -1) -> None:
        raise OSError(errno.EROFS, "Read-only file system", lock.lock_file)

    monkeypatch.setattr(FileLock, "acquire", refuse)
    error = refused(models)
    assert not error.passing
    assert str(error) == (
        ".voice_fp32.lock cannot be written: Read-only file system; let this user write to the models folder, or set "
        "KW_MODELS_DIR to one that it may write to"
    )


def test_two_at_once_fetch_it_once(hub: StandInHub, models: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda number: pull(models), range(2)))
    assert folders == [models / ID] * 2
    assert set(gets(hub).values()) == {1}
    assert list(models.iterdir()) == [models / ID]


def cli(hub: StandInHub, models: Path, before: str = "") -> subprocess.Popen[str]:
    """`qwen3-tts pull` in a process of its own."""
    script = f"import sys\n{before}\nfrom server.__main__ import main\nsys.exit(main(['pull', '{REPO}@fp32']))"
    environment = clean_environment(KW_MODELS_DIR=str(models), HF_ENDPOINT=hub.url, HF_HOME=str(models / ".home"))
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_command_that_is_killed_leaves_nothing_that_counts_and_is_taken_up(hub: StandInHub, models: Path) -> None:
    hub.stall = HELD
    first = cli(hub, models)
    assert hub.stalled.wait(PATIENCE_SECONDS)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=PATIENCE_SECONDS)
    assert not (models / ID).exists()
    hub.stall = None
    verify_files(pull(models), read_manifest(models / ID))
    assert [path.name for path in models.iterdir() if path.name != ".home"] == [ID]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_disk_that_becomes_full_is_told_in_words(hub: StandInHub, models: Path) -> None:
    limited = cli(hub, models, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))")
    _, told = limited.communicate(timeout=PATIENCE_SECONDS)
    assert limited.returncode == 1
    assert "no space is left" in told and "Traceback" not in told
    assert not (models / ID).exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qwen3_tts_0_6b_customvoice", "this project has published none yet"),
        ("me/Voice@q8", "there is no precision q8"),
    ],
)
def test_names_of_nothing_on_the_hub_are_wrong_usage(
    name: str, message: str, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KW_MODELS_DIR", str(models))
    assert command.main(["pull", name]) == 2
    assert message in capsys.readouterr().err


def test_an_installed_package_fetches_into_the_working_directory(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.config import values

    embedded = tmp_path / "package" / "embedded"
    write_bundle(embedded, "tiny")
    monkeypatch.setattr(values, "EMBEDDED", embedded)
    monkeypatch.delenv("KW_MODELS_DIR", raising=False)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert command.main(["pull", f"{REPO}@fp32"]) == 0
    assert [path.name for path in (here / "models").iterdir()] == [ID]
    assert values.default_models_dir() == here / "models"
