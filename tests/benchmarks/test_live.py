"""The benchmark of text that arrives over time, on the fake engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.live import STALL_SECONDS, TEXT, arrival, as_if_learnt, main, needs, paced, tokens_of
from server.engine.tokenizer import TextTokenizer
from server.manifest import TOKENIZER, read_manifest
from tests.bundles import TINY_BUNDLE
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, KEY, run_server


def test_tokens_come_at_their_pace() -> None:
    assert "".join(tokens_of(TEXT)) == TEXT
    even, bursts, stall = (paced(pace, 20) for pace in ("even", "bursts", "stall"))
    assert [at for at, _ in even[:3]] == [0, 0.05, 0.1]
    assert len({at for at, _ in bursts[:8]}) == 1
    assert stall[-1][0] == pytest.approx(even[-1][0] + STALL_SECONDS)
    assert paced("at once", 20) == [(0.0, TEXT)]


def test_a_text_is_there_when_what_follows_shows_it() -> None:
    tokens = [(0.0, "One."), (1.0, " Tw"), (2.0, "o.")]
    assert arrival(tokens, len("One.")) == 1.0
    assert arrival(tokens, len("One.Two.")) == 2.0


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "models", "custom", generation={"max_new_tokens": 20})
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_FRAME_SECONDS": "0.01"}
    with run_server(FAKE, tmp_path, **settings) as server:
        server.wait_ready()
        options = ["--url", server.url, "--key", KEY, "--rounds", "1", "--paces", "even", "--rates", "500"]
        main([*options, "--granularities", "sentence"])
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    assert [row[:2] for row in rows[2:]] == [
        ["none", "at once"],
        ["sentence", "at once"],
        ["sentence", "even, 500 tokens a second"],
    ]
    assert [row[-2:] for row in rows[2:]] == [["1.60", "1"], ["6.40", "4"], ["6.40", "4"]]
    found = re.findall(r"Barge-in by (\w+), (\w+): no row runs after \d+ ms and [\d.]+ frames", printed)
    assert found == [("cancel", "sentence"), ("close", "sentence")]


def test_a_frame_needs_the_token_that_is_fed_with_it() -> None:
    tokenizer = TextTokenizer(TINY_BUNDLE / TOKENIZER)
    tokens = [(0.0, "One"), (1.0, " two"), (2.0, " three.")]
    needed = needs(tokenizer, tokens)
    assert len(needed) == len(tokenizer.encode("One two three."))
    assert needed[0] == 0.0
    assert needed[-1] == 2.0
    assert needed == sorted(needed)
    assert needed.count(0.0) == len(tokenizer.encode("One"))


def test_a_model_that_has_not_learnt_it_is_measured_all_the_same(tmp_path: Path) -> None:
    copy = as_if_learnt(TINY_BUNDLE, tmp_path)
    assert (read_manifest(TINY_BUNDLE).whole_text, read_manifest(copy).whole_text) == (True, False)
    assert as_if_learnt(copy, tmp_path / "again") == copy
