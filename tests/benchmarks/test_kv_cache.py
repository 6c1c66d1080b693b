"""`python -m benchmarks.kv_cache`: what it compares, and that it can tell kinds of scales apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import kv_cache
from benchmarks.kv_cache import agreement_table, main, scales_to_try, table
from server.manifest import MANIFEST_NAME, read_manifest
from tests.bundles import RANDOM_BUNDLE, TINY_BUNDLE
from tests.int8_cache import with_float32_cache, with_int8_cache


def cells(text: str) -> list[list[str]]:
    """The rows of a table below its head."""
    return [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]


def test_bundles_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "OPENED", 1)
    large = with_float32_cache(RANDOM_BUNDLE, tmp_path / "large")
    small = with_int8_cache(large, tmp_path / "small")
    found = cells(table([large, small], rows=[1, 2], pasts=[3], threads=1))
    assert [row[:4] for row in found] == [
        [name, kind, "3", rows] for rows in "12" for name, kind in (("large", "float32"), ("small", "int8"))
    ]
    assert [row[-1] for row in found if row[1] == "float32"] == ["1.00", "1.00"]


def test_kinds_of_scales() -> None:
    seen = [np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)[None, :, None]]
    tried = {name: scales[0][0, :, 0].tolist() for name, scales in scales_to_try(seen, 2.0).items()}
    assert tried == {
        "a scale a channel": [[1, 2], [4, 3]],
        "the same without room": [[0.5, 1], [2, 1.5]],
        "a scale a head": [[2, 2], [4, 4]],
        "a scale a tensor": [[4, 4], [4, 4]],
    }


def test_a_bundle_whose_cache_is_in_8_bits_already_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(RANDOM_BUNDLE)
    talker = manifest.graphs["talker"]
    inputs = tuple(
        one.model_copy(update={"dtype": "int8"}) if one.name.startswith("past.") else one for one in talker.inputs
    )
    graphs = manifest.graphs | {"talker": talker.model_copy(update={"inputs": inputs})}
    (tmp_path / MANIFEST_NAME).write_text(manifest.model_copy(update={"graphs": graphs}).model_dump_json(), "utf-8")
    monkeypatch.setattr("sys.argv", ["kv_cache", "--agreement", "--bundle", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "has a KV cache in int8; convert with --kv-cache float32" in capsys.readouterr().err


def test_codes_of_held_out_sentences_are_compared(tmp_path: Path) -> None:
    found = cells(agreement_table(with_float32_cache(TINY_BUNDLE, tmp_path / "large"), sentences=1))
    assert len(found) == 4
    for _, counts, changed in found:
        equal, compared = map(int, counts.split(" of "))
        assert 0.5 * compared < equal <= compared > 10
        assert 0 < float(changed) < 0.2
