"""Cloned voices in the engine: what may be said with them, and the state behind a recording, made once for all rows."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.engine import encoding
from server.engine.bundle import OpenBundle
from server.engine.job import Job, Sampling
from server.engine.live import LiveJob
from server.engine.manner import CloneError, PromptError
from server.engine.primed import KEPT_STATES, PrimedStates
from server.engine.provider import open_bundle
from server.engine.reference import Reference
from server.engine.worker import Engine
from server.graphs.codec_decoder import FRAMES_AT_ONCE
from server.manifest import BundleError, read_manifest
from server.models.memory import Bounds, model_bytes
from tests.bundles import RANDOM_BUNDLE
from tests.closeness import assert_close
from tests.server.running import PATIENCE_SECONDS

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
WAY: dict[str, Any] = {"speaker": None, "language": "english", "instruction": None}
TEXT = "Seven ferries left at noon."
WORDS = "A few words of a recording."
FRAMES = 20
ROWS = 3


@pytest.fixture(scope="module")
def folder(bundle_of: Callable[[str], Path]) -> Path:
    return bundle_of("Base")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> OpenBundle:
    return open_bundle(folder, provider="cpu", threads=1, slots=ROWS)


class Counting:
    """A codec decoder that keeps the codes that each call decodes, `[rows, frames, groups]`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.calls: list[np.ndarray] = []

    def start(self) -> Any:
        return self._inner.start()

    def decode(self, codes: np.ndarray, states: Any) -> Any:
        self.calls.append(codes)
        return self._inner.decode(codes, states)

    def decoded(self, reference: Reference) -> int:
        """Frames of a recording's beginning that have been decoded, whoever asked for them."""
        assert reference.codes is not None
        first = reference.codes[:FRAMES_AT_ONCE]
        return sum(len(first) for codes in self.calls if codes.shape[1:] == first.shape and (codes[0] == first).all())


@pytest.fixture
def decoder(bundle: OpenBundle) -> Counting:
    return Counting(bundle.codec_decoder)


@pytest.fixture
def engine(bundle: OpenBundle, decoder: Counting) -> Iterator[Engine]:
    engine = Engine(dataclasses.replace(bundle, codec_decoder=decoder), max_queue=16)
    yield engine
    engine.close()


def recording(seconds: float, seed: int = 0) -> np.ndarray:
    count = round(24_000 * seconds)
    loudness = 0.1 + 0.1 * np.sin(np.arange(count) / 3_000 + seed)
    return (np.random.default_rng(seed).normal(size=count) * loudness).astype(np.float32)


@pytest.fixture(scope="module")
def voices(bundle: OpenBundle) -> list[Reference]:
    """Two recordings that are gone on from, of 2 and 1 s, and a voice alone."""
    assert bundle.references is not None
    encode = bundle.references.encode
    return [encode(recording(2), WORDS), encode(recording(1, 1), WORDS), encode(recording(1, 2), None)]


def job_of(engine: Engine, reference: Reference, seed: int = 0, **way: Any) -> Job:
    prompt = engine.prompt(TEXT, **{**WAY, **way}, reference=reference)
    return Job(prompt, SAMPLING, seed, FRAMES)


def audio_of(engine: Engine, *jobs: Job) -> list[np.ndarray]:
    for job in jobs:
        engine.submit(job)
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [np.concatenate(chunks) for chunks in pool.map(list, jobs, timeout=PATIENCE_SECONDS)]


def test_a_recording_is_decoded_once_for_all_that_is_said_with_it(
    engine: Engine, decoder: Counting, voices: list[Reference]
) -> None:
    voice, other, alone = voices
    (first,) = audio_of(engine, job_of(engine, voice))
    assert decoder.decoded(voice) == FRAMES_AT_ONCE
    assert len(first) == FRAMES * engine.manifest.sizes.codec.samples_per_frame, "nothing of the recording is heard"
    jobs = [job_of(engine, each) for each in (voice, other, alone, other, voice)]
    beside = audio_of(engine, *jobs)
    assert_close(beside[0], first)
    assert_close(beside[4], first)
    assert_close(beside[3], beside[1])
    assert not np.allclose(beside[1], first, atol=1e-2)
    assert not np.allclose(beside[2], first, atol=1e-2)
    assert decoder.decoded(voice) == decoder.decoded(other) == FRAMES_AT_ONCE


def test_the_speech_sounds_as_if_the_recording_had_been_said_before_it(
    bundle: OpenBundle, engine: Engine, decoder: Counting
) -> None:
    """Of any length: this one is longer than the windows of all layers together."""
    sizes, step = engine.manifest.sizes.code_predictor, engine.manifest.sizes.codec.samples_per_frame
    codes = np.random.default_rng(0).integers(sizes.vocab_size, size=(201, sizes.num_code_groups))
    speaker = np.zeros(engine.manifest.sizes.talker.hidden_size, np.float32)
    (audio,) = audio_of(engine, job_of(engine, Reference(speaker, codes, WORDS)))
    said = np.concatenate([frames[0] for frames in decoder.calls])[len(codes) :]
    assert len(said) == FRAMES
    whole, _ = bundle.codec_decoder.decode(np.concatenate((codes, said))[None], [bundle.codec_decoder.start()])
    assert_close(audio, whole[0, len(codes) * step :], 1e-4)
    cold, _ = bundle.codec_decoder.decode(said[None], [bundle.codec_decoder.start()])
    assert not np.allclose(audio, cold[0], atol=1e-3), "without the recording it would sound the same"


def test_few_states_are_kept_and_the_latest_used(bundle: OpenBundle, decoder: Counting) -> None:
    states, groups = PrimedStates(decoder), bundle.manifest.sizes.code_predictor.num_code_groups
    recordings = [np.full((FRAMES_AT_ONCE + 1, groups), number) for number in range(KEPT_STATES + 2)]
    for codes in recordings:
        assert states.state(codes) is None
        while states.state(codes) is None:
            states.advance(codes)
        assert states.state(recordings[0]) is not None, "one that is asked for stays"
    assert sum(states.state(codes) is not None for codes in recordings) == KEPT_STATES
    assert states.state(recordings[1]) is None
    assert len(decoder.calls) == 2 * len(recordings)


@pytest.mark.parametrize("layout", ["whole", "streaming"])
def test_the_prompt_of_another_text_begins_alike(engine: Engine, voices: list[Reference], layout: str) -> None:
    one, other = (engine.prompt(text, **WAY, layout=layout, reference=voices[0]) for text in (TEXT, "Another."))
    assert one.key == other.key
    assert one.prefix > engine.prompt(TEXT, **WAY, layout=layout, reference=voices[2]).prefix
    assert engine.prompt(TEXT, **WAY, layout=layout, reference=voices[1]).key != one.key


def test_a_model_that_clones_is_given_its_text_as_it_is_spoken(engine: Engine, voices: list[Reference]) -> None:
    by_default = engine.prompt(TEXT, **WAY, reference=voices[2])
    np.testing.assert_array_equal(
        by_default.embeddings, engine.prompt(TEXT, **WAY, layout="streaming", reference=voices[2]).embeddings
    )
    assert len(by_default.following)


@pytest.mark.parametrize("which", range(3))
def test_text_that_arrives_while_it_is_spoken_is_said_alike(
    engine: Engine, voices: list[Reference], which: int
) -> None:
    (expected,) = audio_of(engine, job_of(engine, voices[which], layout="streaming"))
    text = engine.live_text(**WAY, reference=voices[which])
    job = LiveJob(text, SAMPLING, 0, FRAMES, patience=PATIENCE_SECONDS)
    threading.Thread(target=lambda: [*map(job.feed, [TEXT[:9], TEXT[9:13], TEXT[13:]]), job.end()]).start()
    (found,) = audio_of(engine, job)
    assert_close(found, expected)


def test_a_live_text_without_words_says_nothing(engine: Engine, voices: list[Reference]) -> None:
    job = LiveJob(engine.live_text(**WAY, reference=voices[0]), SAMPLING, 0, FRAMES, patience=PATIENCE_SECONDS)
    job.end()
    assert list(job) == []


def test_voices_that_do_not_fit_are_refused(engine: Engine, voices: list[Reference]) -> None:
    speaker, codes = voices[0].speaker, voices[0].codes
    assert codes is not None
    cases = {
        "speaks with cloned voices only": None,
        r"embedding has the shape \[47\], .* takes 48": Reference(speaker[1:]),
        "finite numbers": Reference(speaker * np.float32("nan")),
        r"codes of the recording have the shape \[\d+, 4\], .* frames of 5": Reference(speaker, codes[:, 1:], WORDS),
        r"shape \[0, 5\]": Reference(speaker, codes[:0], WORDS),
        "from 0 to 255": Reference(speaker, codes + 256, WORDS),
        "from 0 to 255; encode": Reference(speaker, codes - 256, WORDS),
        "text of the recording is empty": Reference(speaker, codes, " "),
    }
    for message, reference in cases.items():
        with pytest.raises(CloneError, match=message):
            engine.prompt(TEXT, **WAY, reference=reference)
        with pytest.raises(CloneError, match=message):
            engine.live_text(**WAY, reference=reference)
    with pytest.raises(PromptError, match=r"text, instruction and recording take .* positions; at most"):
        engine.prompt(TEXT, **WAY, reference=Reference(speaker, np.resize(codes, (2_050, 5)), WORDS))
    with pytest.raises(PromptError, match="text of the recording takes more than"):
        engine.prompt(TEXT, **WAY, reference=Reference(speaker, codes, "words " * 9_000))


def test_recordings_that_are_none_are_refused_before_a_graph_is_loaded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "open_session", None)
    good = recording(1)
    spoilt = good.copy()
    spoilt[77] = np.inf
    cases = {
        "0.49 s long; give one of 0.5 to 60 s": good[:11_800],
        "60.04 s long": np.zeros(24_000 * 60 + 1_000, np.float32),
        r"the shape \[2, 12000\]; give one channel": good.reshape(2, -1),
        "not finite": spoilt,
        "0.00 s long": good[:0],
    }
    for message, samples in cases.items():
        with pytest.raises(CloneError, match=message):
            engine.encode_reference(samples, None)
    with pytest.raises(CloneError, match="text of the recording is empty"):
        engine.encode_reference(good, "\n")


def test_one_recording_is_encoded_at_a_time_and_no_graph_stays(
    engine: Engine, voices: list[Reference], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    held, most = 0, 0

    class Held:
        """A session that counts itself."""

        def __init__(self, inner: Any) -> None:
            nonlocal held, most
            self._inner = inner
            held += 1
            most = max(most, held)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def __del__(self) -> None:
            nonlocal held
            held -= 1

    open_session = encoding.open_session

    def open_one(path: Path, *arguments: Any) -> Any:
        opened.append(path.stem)
        return Held(open_session(path, *arguments))

    monkeypatch.setattr(encoding, "open_session", open_one)
    with ThreadPoolExecutor(3) as pool:
        found = list(
            pool.map(lambda _: engine.encode_reference(recording(2), WORDS), range(3), timeout=PATIENCE_SECONDS)
        )
    for reference in found:
        np.testing.assert_array_equal(reference.codes, voices[0].codes)
        np.testing.assert_array_equal(reference.speaker, voices[0].speaker)
    assert opened == ["speaker_encoder", "codec_encoder"] * 3
    assert (held, most) == (0, 1)


def test_a_model_with_speakers_says_how_to_get_one_that_clones() -> None:
    engine = Engine.load(RANDOM_BUNDLE, provider="cpu", threads=1, max_rows=1, max_queue=1)
    try:
        command = r"cannot clone voices; .* qwen3-tts convert --model Qwen/Qwen3-TTS-12Hz-0\.6B-Base"
        with pytest.raises(CloneError, match=command):
            engine.encode_reference(recording(1), None)
        with pytest.raises(CloneError, match=command):
            engine.prompt(TEXT, **{**WAY, "speaker": None}, reference=Reference(np.zeros(48, np.float32)))
    finally:
        engine.close()


def test_a_bundle_that_clones_is_whole(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder)
    for lacks in ("speaker_encoder", "codec_encoder"):
        graphs = {name: graph for name, graph in manifest.graphs.items() if name != lacks}
        (tmp_path / "manifest.json").write_text(manifest.model_copy(update={"graphs": graphs}).model_dump_json())
        with pytest.raises(BundleError, match=f"no graph {lacks}"):
            read_manifest(tmp_path)
    files = {name: entry for name, entry in manifest.files.items() if name != "predictor_embedding.npy"}
    (tmp_path / "manifest.json").write_text(manifest.model_copy(update={"files": files}).model_dump_json())
    with pytest.raises(BundleError, match="does not list predictor_embedding"):
        read_manifest(tmp_path)


def test_tables_on_disk_take_no_memory(folder: Path) -> None:
    manifest = read_manifest(folder)
    table = manifest.files["predictor_embedding.npy"]
    without = {name: entry for name, entry in manifest.files.items() if entry is not table}
    bounds = Bounds(rows=1)
    assert model_bytes(manifest, bounds) == model_bytes(manifest.model_copy(update={"files": without}), bounds)
