"""Compares the codes that a device draws with the CPU's, which computes in float32 with the same rounded weights."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from export.graphs.cuda.narrow import widen
from export.parity import FRAMES, REPETITION_PENALTY, TEXT, Reference, measure
from server.engine.bundle import open_prompts
from server.engine.frames import Frames
from server.engine.holdback import RowState
from server.engine.job import Job, Sampling
from server.engine.manner import AUTO
from server.engine.prompt import Prompt
from server.engine.provider import open_bundle
from server.engine.rows import Row
from server.engine.sampling import RowSampler
from server.graphs.code_predictor import CodePredictor, forced_logits
from server.graphs.cuda.codec_decoder import PooledCodecDecoder
from server.graphs.frame_state import Controls, RowOutput, control_buffer
from server.graphs.memory import HostMemory
from server.graphs.session import Chosen, open_session
from server.graphs.talker import Talker
from server.manifest import CODEC_TABLE, Manifest, read_manifest
from tests.host_draw import draw_code_0

SAMPLED = Sampling(0.9, 50, 0.95, 1.05, 0.9, 50, 1.0)


def parity(bundle: Path, device: Chosen, threads: int) -> dict[str, Any]:
    """Teacher-forced agreement of a bundle on `device` with itself on the CPU, as `measure` reports it.

    Of codebook 0 it also says how often the device draws, from the same logits, what the host's sampling draws.
    """
    manifest = read_manifest(bundle)
    with TemporaryDirectory(dir=bundle.parent, prefix=".widened-") as folder:
        for graph in manifest.graphs.values():
            widen(bundle / graph.file, Path(folder, graph.file))
        expected = _reference(bundle, Path(folder), manifest, threads)
    found = measure(bundle, manifest, expected, threads, device)
    found["codes"]["codebook 0 drawn from the same logits"] = _drawn(bundle, device, threads, expected)
    return found


def _drawn(bundle: Path, device: Chosen, threads: int, expected: Reference) -> dict[str, int]:
    opened = open_bundle(bundle, provider=device, threads=threads, slots=1, positions=len(expected.prompt) + FRAMES)
    codec, equal = opened.codec_decoder.start(), 0
    job = Job(Prompt(expected.prompt, 1), SAMPLED, seed=0, max_frames=FRAMES)
    device_sampler, host_sampler = (RowSampler(SAMPLED, 0, opened.manifest) for _ in range(2))
    frames = Frames(opened.talker, opened.code_predictor, opened.manifest.sizes, opened.prompts.pad)
    end = opened.manifest.ids.codec_eos
    for logits, hidden, codes in zip(expected.logits, expected.hidden, expected.codes, strict=True):
        row = Row(job, 0, RowState(len(expected.prompt), RowOutput(logits, hidden), codec, None), device_sampler)
        wanted = draw_code_0(host_sampler, logits, host_sampler.uniforms()[0], end=end)
        found = [end if drawn is None else drawn[0] for _, drawn in frames.draw([row])]
        equal += found == [wanted]
        for sampler in (device_sampler, host_sampler):
            sampler.accept(int(codes[0]))
    return {"equal": equal, "compared": len(expected.codes)}


def _reference(bundle: Path, wide: Path, manifest: Manifest, threads: int) -> Reference:
    sessions = {name: open_session(wide / graph.file, "cpu", threads) for name, graph in manifest.graphs.items()}
    prompts, table = open_prompts(bundle, manifest), np.load(bundle / CODEC_TABLE)
    speaker = next(iter(manifest.speakers), None)
    prompt = prompts.build(TEXT, speaker=speaker, language=AUTO, instruction=None).embeddings
    groups = manifest.sizes.code_predictor.num_code_groups
    talker = Talker(sessions["talker"], manifest.sizes, 1)
    talker.state.put_text(0, prompts.pad)
    predictor = CodePredictor(sessions["code_predictor"], talker.state)
    rows: dict[str, list[Any]] = {name: [] for name in ("codes", "inputs", "hidden", "logits", "predictor_logits")}
    begin, controls = talker.prefill(0, prompt), Controls(len(prompt), repetition_penalty=REPETITION_PENALTY)
    talker.state.put(0, RowOutput(*(value[0] for value in begin)), np.zeros(len(table), np.bool_))
    for _ in range(FRAMES):
        logits, hidden = talker.state.get(0)
        (codes,) = predictor.run(0, control_buffer([controls], [np.zeros(groups, np.float32)]))
        ((inputs,),) = talker.state.talker_inputs.read(0, 1)
        predictor_logits = forced_logits(sessions["code_predictor"], hidden[None], codes[None])
        values = (codes, inputs, hidden, logits, predictor_logits[0])
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
        controls = controls._replace(length=controls.length + 1, last_code=int(codes[0]))
        talker.advance(0, 1, controls.length)
    stacked: dict[str, Any] = {name: np.stack(values) for name, values in rows.items()}
    decoder = PooledCodecDecoder(sessions["codec_decoder"], 1, HostMemory())
    waveform, _ = decoder.decode(stacked["codes"][None], [decoder.start()])
    return Reference(prompt=prompt, waveform=waveform[0], **stacked)
