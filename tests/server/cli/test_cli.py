"""The command line: help, settings that are wrong, and the commands that need no server."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from server import __main__ as command
from server import config
from server.cli import serve, startup, tasks
from server.http.access import KeyRing
from tests.server.audio.recordings import recorded
from tests.server.fakes import FRAME, SAMPLE_RATE, UNFIT, FakeEngine, write_bundle
from tests.server.running import ROOT, clean_environment


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder that the settings point to, served by the fake engine when `main` is called in this process."""
    folder = tmp_path / "models"
    write_bundle(folder, "custom", generation={"max_new_tokens": 20})
    write_bundle(folder, "design", model_type="voice_design", speakers={}, follows_instructions=True)
    for name in [name for name in os.environ if name.startswith("KW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KW_MODELS_DIR", str(folder))
    for module in (serve, startup):
        monkeypatch.setattr(module, "engine_loader", lambda settings: FakeEngine.load)
    return folder


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["say", "--help"]])
def test_help_lists_every_variable_with_its_default(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        command.main(arguments)
    assert left.value.code == 0
    printed = capsys.readouterr().out
    for name, default, _ in config.describe():
        assert f"  {name}\n" in printed
        assert f"Default: {default}." in " ".join(printed.split())


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"KW_PORT": "eighty"}, "KW_PORT: "),
        ({"KW_HOST": "0.0.0.0"}, "KW_HOST=0.0.0.0"),
        ({"KW_MODELS_DIR": "/nowhere"}, "KW_MODELS_DIR: /nowhere"),
        ({"KW_EXECUTION_PROVIDER": "npu"}, "KW_EXECUTION_PROVIDER: "),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    models: Path,
    variables: dict[str, str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert command.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("qwen3-tts: " + says)
    assert error.count("\n") == 1


def test_a_default_model_that_is_not_there(models: Path) -> None:
    done = run(KW_MODELS_DIR=str(models), KW_MODEL="absent")
    assert done.returncode == 2
    told = "qwen3-tts: KW_MODEL: no model 'absent'; there are custom, design; to make one: qwen3-tts convert --model "
    assert done.stderr.startswith(told) and done.stderr.count("\n") == 1
    done = run(KW_MODELS_DIR=str(models), KW_MODEL="qwen3_tts_0_6b_base_int4")
    made = "qwen3-tts convert --model Qwen/Qwen3-TTS-12Hz-0.6B-Base --precision int4"
    assert done.stderr.endswith(f"; to make it: {made} --output models/qwen3_tts_0_6b_base_int4\n")


def test_without_onnx_runtime_both_extras_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for arguments in (["serve"], [], ["say", "hello", "-o", "x.wav"]):
        assert command.main(arguments) == 1
        message = capsys.readouterr().err
        assert "qwen3-tts-edge[cpu]" in message
        assert "qwen3-tts-edge[cuda]" in message


def test_models(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "design" / "manifest.json").write_text("{")
    (write_bundle(models, "aaa") / "manifest.json").write_text("{")
    assert command.main(["models"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("custom (default)\n    custom, for tests"), "the first that can be read"
    assert "aaa\n    cannot be served: aaa: manifest.json" in printed
    assert "design\n    cannot be served: design: manifest.json" in printed


def test_models_of_an_empty_folder(tmp_path: Path) -> None:
    done = run("models", KW_MODELS_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no model bundle" in done.stderr


def test_voices(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["voices"]) == 0
    printed = capsys.readouterr().out
    assert f"{'ryan':<20} male, english\n" in printed
    assert f"{'alloy':<20} means serena\n" in printed
    assert command.main(["voices", "--model", "design"]) == 0
    assert capsys.readouterr().out.startswith("design\n")
    assert command.main(["voices", "--model", "absent"]) == 2
    assert "no such model" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["wav", "mp3", "pcm"])
def test_say_writes_a_file(models: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / f"out.{ending}"
    output.write_bytes(b"what was there before")
    options = "--voice ryan --language en --seed 5 --temperature 0.5 --top-k 5 --top-p 0.9 --repetition-penalty 1.1"
    assert command.main(["say", "Hello", "-o", str(output), *options.split(), "--exact-frames", "5"]) == 0
    if ending == "pcm":
        assert len(output.read_bytes()) == 5 * FRAME * 2
    else:
        samples, rate = soundfile.read(output)
        assert rate == SAMPLE_RATE
        assert 0 <= len(samples) - 5 * FRAME < 4 * 1152
    assert "0.40 s of audio" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", output.name]


@pytest.mark.parametrize(("ending", "begins"), [("srt", "1\n00:00:"), ("VTT", "WEBVTT\n\n00:00:")])
@pytest.mark.parametrize("unit", ["sentence", "chunk"])
def test_say_writes_captions(models: Path, tmp_path: Path, ending: str, begins: str, unit: str) -> None:
    write_bundle(models, "short", generation={"max_new_tokens": 4})
    output, captions = tmp_path / "out.pcm", tmp_path / f"out.{ending}"
    captions.write_text("what was there before")
    text = "[0.5s] Fish & chips cost $5. Two is here. "
    options = ["--model", "short", "--captions", str(captions)]
    options += ["--timestamps", unit] if unit == "chunk" else []
    assert command.main(["say", text, "-o", str(output), *options]) == 0
    written = captions.read_text("utf-8")
    assert written.startswith(begins)
    found = re.findall(r"(\d+)[.,](\d{3}) --> \d+:\d+:(\d+)[.,](\d{3})\n(.+)\n", written)
    assert found[0][:2] == ("00", "500")
    assert int(found[-1][2] + found[-1][3]) == round(1000 * len(output.read_bytes()) / 2 / SAMPLE_RATE)
    said = "Fish &amp; chips" if ending == "VTT" else "Fish & chips"
    whole = [f"{said} cost $5.", "Two is here."]
    assert [text for *_, text in found] == (whole if unit == "sentence" else [" ".join(whole)])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["models", output.name, captions.name])


def test_say_tells_that_it_cut_the_speech_off(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.pcm"
    assert command.main(["say", "Hello", "-o", str(output), "--max-new-tokens", "3"]) == 0
    assert len(output.read_bytes()) == 3 * FRAME * 2
    assert "0.24 s of audio, cut off at 3 frames, made in" in capsys.readouterr().err


def test_say_takes_a_speed_and_the_format_of_a_text(models: Path, tmp_path: Path) -> None:
    options = ["-o", str(tmp_path / "out.pcm"), "--exact-frames", "20"]
    assert command.main(["say", "**Hello**", *options, "--speed", "2", "--text-format", "plain"]) == 0
    assert (tmp_path / "out.pcm").stat().st_size == pytest.approx(10 * FRAME * 2, rel=0.02)
    assert command.main(["say", "Hello", *options, "--text-format", "word"]) == 2


def test_say_speaks_with_a_voice_design_model(models: Path, tmp_path: Path) -> None:
    options = ["--model", "design", "--instructions", "an old man", "--exact-frames", "2"]
    assert command.main(["say", "Hello", "-o", str(tmp_path / "out.wav"), *options]) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["say", "Hello", "-o", "{}/out.ogg"], 2, ".mp3, .opus, .aac, .flac, .wav, .pcm"),
        (["say", "Hello", "-o", "{}/absent/out.wav"], 2, "there is no folder"),
        (["say", "Hello", "-o", "{}/out.wav", "--captions", "{}/out.txt"], 2, "must end in .srt or .vtt"),
        (["say", "Hello", "-o", "{}/out.wav", "--captions", "-"], 2, "must end in .srt or .vtt"),
        (["say", "Hello", "-o", "{}/out.wav", "--captions", "{}/absent/out.srt"], 2, "there is no folder"),
        (["say", "Hello", "-o", "{}/out.wav", "--timestamps", "chunk"], 2, "--timestamps needs --captions"),
        (["say", "Hello", "-o", "{}/out.wav", "--captions", "{}/a.srt", "--timestamps", "word"], 2, "'sentence' or"),
        (["say", "fail-later", "-o", "{}/out.wav", "--captions", "{}/out.srt"], 1, "could not be made"),
        (["say", " ", "-o", "{}/out.wav"], 2, "input is empty"),
        (["say", "Hello", "-o", "{}/out.wav", "--voice", "nobody"], 2, "voices are"),
        (["say", "Hello", "-o", "{}/out.wav", "--seed", "-2"], 2, "seed must be at least 0"),
        (["say", "fail-later", "-o", "{}/out.wav"], 1, "could not be made"),
        (["say", UNFIT, "-o", "{}/out.wav"], 2, "too long"),
    ],
)
def test_say_that_fails_leaves_nothing(
    models: Path, tmp_path: Path, arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([argument.format(tmp_path) for argument in arguments]) == status
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_say_with_a_damaged_bundle_says_which_file(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "custom" / "talker.onnx").write_bytes(b"\x08" * 1000)
    assert command.main(["say", "Hello", "-o", str(tmp_path / "out.wav")]) == 1
    assert "talker.onnx is damaged" in capsys.readouterr().err


def test_keys_are_made_listed_and_revoked(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["keys", "list"]) == 2
    assert "set KW_API_KEYS_FILE" in capsys.readouterr().err
    path = tmp_path / "keys"
    monkeypatch.setenv("KW_API_KEYS_FILE", str(path))
    assert command.main(["keys", "list"]) == 1
    assert "keys new LABEL" in capsys.readouterr().err
    assert command.main(["keys", "new", "alice"]) == 0
    key = capsys.readouterr().out.removesuffix("\n")
    assert KeyRing([], path).check(f"Bearer {key}") == "alice"
    assert key not in path.read_text()
    assert command.main(["keys", "new", "alice"]) == 1
    assert "already" in capsys.readouterr().err
    assert command.main(["keys", "list"]) == 0
    assert capsys.readouterr().out == "alice\n"
    assert command.main(["keys", "revoke", "alice"]) == 0
    assert command.main(["keys", "list"]) == 0
    assert capsys.readouterr().out == ""


def test_serving_with_a_key_file_that_cannot_be_used(models: Path, tmp_path: Path) -> None:
    done = run(KW_MODELS_DIR=str(models), KW_API_KEYS_FILE=str(tmp_path / "absent"))
    assert done.returncode == 2
    *_, error = done.stderr.splitlines()
    assert error.startswith("qwen3-tts: KW_API_KEYS_FILE: ")
    assert "keys new LABEL" in error


def manifest_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_batch_speaks_each_line_once(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, folder = tmp_path / "texts.txt", tmp_path / "new" / "out"
    texts.write_text("One.\n\nfail-at-start\nThree.\n")
    arguments = ["batch", str(texts), "-o", str(folder), "--voice", "ryan"]
    assert command.main(arguments) == 1
    assert "line 3: the speech could not be made" in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == {"00001.wav", "00004.wav", "manifest.jsonl"}
    first, _ = sorted(manifest_of(folder), key=lambda entry: str(entry["file"]))
    assert {**first, "seed": 0, "request_sha256": ""} == {
        "file": "00001.wav",
        "line": 1,
        "input": "One.",
        "bytes": (folder / "00001.wav").stat().st_size,
        "model": "custom",
        "voice": "ryan",
        "speaker": "ryan",
        "seed": 0,
        "audio_seconds": soundfile.info(folder / "00001.wav").duration,
        "request_sha256": "",
    }
    before = (folder / "00001.wav").stat().st_mtime_ns
    texts.write_text("One.\n\nTwo.\nFour.\n")
    (folder / "manifest.jsonl").open("a").write('{"file": "00003.wav", "by')  # as of a run that was killed
    assert command.main(arguments) == 0
    assert "2 texts made, 1 were there already" in capsys.readouterr().err
    assert (folder / "00001.wav").stat().st_mtime_ns == before
    assert {str(entry["file"]): entry["input"] for entry in manifest_of(folder)} == {
        "00001.wav": "One.",
        "00003.wav": "Two.",
        "00004.wav": "Four.",
    }
    (folder / "00003.wav").unlink()
    assert command.main(arguments) == 0
    assert (folder / "00003.wav").is_file()


def test_batch_takes_requests(models: Path, tmp_path: Path) -> None:
    texts, folder = tmp_path / "texts.jsonl", tmp_path / "out"
    hello = {"id": "hello", "input": "Hello.", "seed": 7, "exact_frames": 3, "timestamps": "chunk"}
    lines = [hello, {"text": "Two.", "voice": "serena"}]
    texts.write_text("\n".join(map(json.dumps, lines)))
    assert command.main(["batch", str(texts), "-o", str(folder), "--format", "flac"]) == 0
    assert soundfile.info(folder / "hello.flac").frames == 3 * FRAME
    entries = {str(entry["file"]): entry for entry in manifest_of(folder)}
    assert entries["hello.flac"]["seed"] == 7
    times = {"text": "Hello.", "start_char": 0, "end_char": 6, "start_time": 0.0, "end_time": 0.24}
    assert entries["hello.flac"]["timestamps"] == [times]
    assert entries["00002.flac"]["voice"] == "serena"
    assert "timestamps" not in entries["00002.flac"]


def test_batch_names_what_it_does_not_follow(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, folder = tmp_path / "texts.jsonl", tmp_path / "out"
    lines = [
        {"input": "One.", "response_format": "mp3", "lanuage": "en"},
        {"input": "Two.", "response_format": "flac", "stream": False, "id": "two"},
        {"input": "Three.", "stream": True, "lanuage": "en"},
    ]
    texts.write_text("\n".join(map(json.dumps, lines)))
    assert command.main(["batch", str(texts), "-o", str(folder), "--format", "flac"]) == 0
    note = "note: fields of 2 lines mean nothing here: lanuage, response_format, stream\n"
    assert note in capsys.readouterr().err
    assert {path.name for path in folder.glob("*.flac")} == {"00001.flac", "two.flac", "00003.flac"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "line 1: it is no JSON"),
        ("[]", "line 1: it is no JSON object"),
        ('{"input": "x"}\n{"input": ""}', "line 2: input"),
        ('{"input": "x", "id": "../x"}', "line 1: id is the name of a file"),
        ('{"input": "x", "id": "a"}\n{"input": "x", "id": "A"}', "line 2: line 1 has the same id"),
        ('{"input": "x", "seed": -5}', "line 1: seed"),
        (json.dumps({"input": "x", "id": "\u00e9" * 120}), "line 1: id is too long for the name of a file"),
    ],
)
def test_batch_says_what_is_wrong_before_it_begins(
    models: Path, tmp_path: Path, content: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(content)
    assert command.main(["batch", str(texts), "-o", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_batch_ends_a_text_where_its_line_ends_and_takes_the_longest_id(models: Path, tmp_path: Path) -> None:
    texts, folder = tmp_path / "texts.txt", tmp_path / "out"
    texts.write_bytes("One.\u2028Two.\x0cThree.\u0085Four.\r\nFive.\n".encode())
    assert command.main(["batch", str(texts), "-o", str(folder)]) == 0
    made = {str(entry["file"]): entry["input"] for entry in manifest_of(folder)}
    assert made == {"00001.wav": "One.\u2028Two.\x0cThree.\u0085Four.", "00002.wav": "Five."}
    longest = "\u00e9" * (tasks.MAX_ID_BYTES // 2)
    requests = tmp_path / "requests.jsonl"
    requests.write_text(json.dumps({"id": longest, "input": "x"}) + "\n")
    assert command.main(["batch", str(requests), "-o", str(folder)]) == 0
    assert (folder / f"{longest}.wav").is_file()


def test_a_file_that_cannot_be_written_is_told_by_its_name(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "said.wav"

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert command.main(["say", "One.", "-o", str(output)]) == 1
    assert capsys.readouterr().err == f"qwen3-tts: {output}: No space left on device\n"


def test_batch_that_cannot_write_says_so(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, folder = tmp_path / "texts.txt", tmp_path / "out"
    texts.write_text("One.\nTwo.\n")

    async def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("server.cli.say.write", full)
    assert command.main(["batch", str(texts), "-o", str(folder)]) == 1
    assert f"{folder}: No space left on device; " in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert command.main(["batch", str(texts), "-o", str(tmp_path / "file")]) == 1
    assert f"{tmp_path / 'file'}: File exists" in capsys.readouterr().err


@pytest.fixture
def kept(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for voices, and a model that clones them."""
    write_bundle(models, "base", model_type="base", speakers={}, generation={"max_new_tokens": 10})
    folder = tmp_path / "voices"
    folder.mkdir()
    monkeypatch.setenv("KW_VOICES_DIR", str(folder))
    (tmp_path / "anna.wav").write_bytes(recorded())
    return folder


def test_a_voice_is_added_listed_spoken_with_and_removed(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add = ["voices", "add", "anna", str(tmp_path / "anna.wav")]
    assert command.main([*add, "--text", "What is said."]) == 2
    assert "consent is missing" in capsys.readouterr().err
    assert command.main([*add, "--consent", "yes", "--text", "No.", "--description", "warm"]) == 0
    out = capsys.readouterr().out
    assert "never end" in out
    assert "anna: kept, for base" in out
    assert command.main(["voices"]) == 0
    everything = capsys.readouterr().out
    assert "anna                 warm, cloned for base, everybody's" in everything
    assert command.main(["voices", "list"]) == 0
    assert capsys.readouterr().out == everything
    assert command.main(["voices", "--model", "custom"]) == 0
    assert "anna" not in capsys.readouterr().out.replace("ono_anna", "")
    assert command.main(["voices", "list", "--model", "base"]) == 0
    assert capsys.readouterr().out.startswith("anna ")
    output = tmp_path / "said.wav"
    for chosen in (["--model", "base"], []):
        assert command.main(["say", "Hello.", "-o", str(output), "--voice", "anna", *chosen]) == 0
        assert soundfile.info(output).frames == 10 * FRAME
        assert " by base, voice anna, " in capsys.readouterr().err
    assert command.main(["voices", "remove", "anna"]) == 0
    assert list(kept.iterdir()) == []
    capsys.readouterr()
    assert command.main(["voices", "remove", "anna"]) == 2
    assert "no voice anna" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["anna.wav", "--consent", "yes"], "or --x-vector-only, which needs no text"),
        (["--instructions", "An old sailor."], "what the voice that is made up is to say"),
        (["--instructions", "An old sailor.", "--x-vector-only"], "what the voice that is made up is to say"),
    ],
)
def test_a_voice_without_its_text_is_told_in_words_of_the_command_line(
    kept: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["voices", "add", "anna", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("qwen3-tts: --text is missing: ") and says in error
    assert list(kept.iterdir()) == []


def test_a_voice_needs_no_text_where_that_is_said(kept: Path, tmp_path: Path) -> None:
    add = ["voices", "add", "anna", str(tmp_path / "anna.wav"), "--consent", "yes"]
    assert command.main([*add, "--x-vector-only"]) == 0
    assert [path.stem for path in kept.iterdir()] == ["anna"]


def test_say_clones_a_recording(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "said.wav"
    say = ["say", "Hello.", "-o", str(output), "--ref-audio", str(tmp_path / "anna.wav")]
    assert command.main([*say, "--ref-text", "What is said.", "--model", "custom"]) == 2
    assert "base, which is here, can" in capsys.readouterr().err
    assert not output.exists()
    assert command.main([*say, "--ref-text", "What is said."]) == 0
    assert "made in" in (told := capsys.readouterr().err) and " by base, voice default, " in told
    assert command.main([*say, "--ref-text", "What is said.", "--model", "base"]) == 0
    assert command.main([*say, "--x-vector-only-mode", "true", "--model", "base"]) == 0
    assert soundfile.info(output).frames == 10 * FRAME


def test_a_voice_is_designed(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add = ["voices", "add", "sailor", "--instructions", "An old sailor.", "--text", "What it says for a sample."]
    assert command.main([*add, "--seed", "5"]) == 2, "the fake model goes on for minutes"
    assert "longer than 30 s" in capsys.readouterr().err


def test_without_a_folder_there_is_nothing_to_add_to(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["add", "anna"], ["remove", "anna"]):
        assert command.main(["voices", *arguments]) == 2
        assert "KW_VOICES_DIR" in capsys.readouterr().err


def test_an_option_that_no_command_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(["models", "--colour", "red"])
    assert left.value.code == 2
    assert "unrecognized arguments: --colour red" in capsys.readouterr().err


def test_the_exporter_gets_its_options_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    class Hook:
        @staticmethod
        def load() -> Any:
            return lambda options: given.append(options) or 3

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **named: [Hook()])
    with pytest.raises(SystemExit) as left:
        command.main(["convert", "--model", "a b", "--precision=bf16", "-h", "--force"])
    assert left.value.code == 3
    assert given == [["--model", "a b", "--precision=bf16", "-h", "--force"]]


def test_where_the_exporter_is_not_installed_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **named: [])
    assert command.main(["convert"]) == 1
    assert "the exporter is not installed" in capsys.readouterr().err
