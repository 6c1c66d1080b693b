"""Whether a device draws the CPU's codes: the rule is the CPU in float32, with the same rounded weights."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from export.graphs.narrow import widen
from export.parity import FRAMES, GREEDY, TEXT, Reference, measure
from server.engine.bundle import CODEC_TABLE, open_prompts
from server.engine.prompt import AUTO
from server.engine.sampling import RowSampler
from server.graphs.code_predictor import CodePredictor, DrawParameters
from server.graphs.codec_decoder import CodecDecoder
from server.graphs.manifest import Manifest, read_manifest
from server.graphs.session import Chosen, open_session
from server.graphs.talker import Talker


def parity(bundle: Path, device: Chosen, threads: int) -> dict[str, Any]:
    """Teacher-forced agreement of a bundle on `device` with itself on the CPU, as `measure` reports it."""
    manifest = read_manifest(bundle)
    with TemporaryDirectory(dir=bundle.parent, prefix=".widened-") as folder:
        for graph in manifest.graphs.values():
            widen(bundle / graph.file, Path(folder, graph.file))
        expected = _reference(bundle, Path(folder), manifest, threads)
    return measure(bundle, manifest, expected, threads, device)


def _reference(bundle: Path, wide: Path, manifest: Manifest, threads: int) -> Reference:
    sessions = {name: open_session(wide / graph.file, "cpu", threads) for name, graph in manifest.graphs.items()}
    prompts, table = open_prompts(bundle, manifest), np.load(bundle / CODEC_TABLE)
    speaker = next(iter(manifest.speakers), None)
    prompt = prompts.build(TEXT, speaker=speaker, language=AUTO, instruction=None).embeddings
    talker, predictor = Talker(sessions["talker"], manifest.sizes.talker, 1), CodePredictor(sessions["code_predictor"])
    sampler, one = RowSampler(GREEDY, 0, manifest), np.ones(1, np.float32)
    greedy = DrawParameters(one, np.ones(1, np.int64), one)
    zeros = np.zeros((1, manifest.sizes.code_predictor.num_code_groups - 1), np.float32)
    rows: dict[str, list[Any]] = {name: [] for name in ("codes", "inputs", "hidden", "logits", "predictor_logits")}
    output = talker.prefill(0, prompt)
    for frame in range(FRAMES):
        code_0 = sampler.choose(output.logits[0], 0.0, may_end=False)
        sampler.accept(code_0)
        rest, embedding = predictor.run(output.hidden, np.array([code_0]), zeros, greedy)
        codes = np.concatenate(([code_0], rest[0]))
        inputs = embedding + prompts.pad
        logits = predictor.logits(output.hidden, codes[None])
        values = (codes, inputs[0], output.hidden[0], output.logits[0], logits[0])
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
        output = talker.decode(0, inputs, np.array([len(prompt) + frame], np.int32))
    stacked = {name: np.stack(values) for name, values in rows.items()}
    decoder = CodecDecoder(sessions["codec_decoder"])
    waveform, _ = decoder.decode(stacked["codes"][None], [decoder.start()])
    if len(table) != manifest.sizes.talker.vocab_size:
        raise ValueError(f"{bundle.name}: the codec table has {len(table)} rows")
    return Reference(prompt=prompt, waveform=waveform[0], **stacked)
