"""What a manifest may say: ranges, file names, format, and that it vouches for everything that is opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save_model

from server.engine.provider import open_bundle
from server.graphs.checking import STAMP_NAME, verify_files
from server.graphs.external_data import external_data
from server.manifest import CODEC_TABLE, FORMAT_VERSION, FORMATS, GRAPHS, BundleError, read_manifest, sha256_of
from tests.bundles import RANDOM_BUNDLE, TINY_BUNDLE
from tests.server.fakes import manifest_of, write_bundle

TOO_MANY = 10**6


def change(folder: Path, path: str, value: Any) -> None:
    """Set what lies at `path` of a manifest; steps are separated by blanks."""
    manifest = json.loads((folder / "manifest.json").read_text())
    *steps, last = path.split()
    place = manifest
    for step in steps:
        place = place[step]
    place[last] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))


def copy_of_random(scratch: Path) -> Path:
    return shutil.copytree(RANDOM_BUNDLE, scratch / "bundle", ignore=shutil.ignore_patterns(STAMP_NAME))


def error_of(work: Callable[[], object]) -> str:
    with pytest.raises(BundleError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("folder", [RANDOM_BUNDLE, TINY_BUNDLE])
def test_the_committed_bundles_are_whole(folder: Path) -> None:
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    for name in GRAPHS:
        assert external_data(folder / manifest.graphs[name].file) == {f"{name}.onnx_data"}


def test_the_embedded_model_declares_what_it_was_trained_on() -> None:
    alphabet = read_manifest(TINY_BUNDLE).alphabet
    recipe = TINY_BUNDLE / "recipe"
    assert alphabet == (recipe / "alphabet.txt").read_text("utf-8").rstrip("\n")
    assert set((recipe / "heldout.txt").read_text("utf-8")) - {"\n"} <= set(alphabet)


def test_a_bundle_that_declares_no_alphabet_reads_any(tmp_path: Path) -> None:
    folder = copy_of_random(tmp_path)
    assert read_manifest(folder).alphabet is None
    change(folder, "alphabet", "ab c")
    assert read_manifest(folder).alphabet == "ab c"


@pytest.mark.parametrize("alphabet", ["", "a\nb", 5, ["a", "b"]])
def test_an_alphabet_is_characters(tmp_path: Path, alphabet: Any) -> None:
    folder = copy_of_random(tmp_path)
    change(folder, "alphabet", alphabet)
    assert "alphabet" in error_of(lambda: read_manifest(folder))


SIZES = [
    *(f"sizes talker {name}" for name in ("hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim")),
    *(f"sizes talker {name}" for name in ("vocab_size", "max_positions")),
    *(f"sizes code_predictor {name}" for name in ("hidden_size", "num_layers", "vocab_size", "num_code_groups")),
    *(f"sizes codec {name}" for name in ("num_quantizers", "codebook_size", "sample_rate", "samples_per_frame")),
]
CODEC_IDS = [f"ids codec_{name}" for name in ("bos", "eos", "pad", "think", "nothink", "think_bos", "think_eos")]
TEXT_IDS = [f"ids {name}" for name in ("im_start", "im_end", "tts_bos", "tts_eos", "tts_pad")]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((path, value) for path in SIZES for value in (0, -1, "many", None)),
        *((path, value) for path in (*CODEC_IDS, *TEXT_IDS) for value in (-1, 1.5)),
        *((path, TOO_MANY) for path in CODEC_IDS),
        ("sizes talker num_kv_heads", 3),
        ("sizes code_predictor num_code_groups", 15),
        ("sizes codec codebook_size", 100),
        *(("speakers ryan id", value) for value in (-1, 3072, TOO_MANY)),
        *(("languages english", value) for value in (-1, 3072, TOO_MANY)),
        ("speakers ryan dialect", "klingon"),
        ("speakers", {"": {"id": 1}}),
        ("speakers", {" ": {"id": 1}}),
        ("languages", {"": 1}),
        *(
            (f"generation {prefix}temperature", value)
            for prefix in ("", "subtalker_")
            for value in (-0.1, float("inf"))
        ),
        *(
            (f"generation {prefix}top_p", value)
            for prefix in ("", "subtalker_")
            for value in (0, -1, 1.1, float("nan"))
        ),
        *((f"generation {prefix}top_k", value) for prefix in ("", "subtalker_") for value in (-1, 0.5)),
        *(("generation repetition_penalty", value) for value in (0, -1, 1e-300, 1e300)),
        *((f"generation {prefix}temperature", 1e300) for prefix in ("", "subtalker_")),
        *((f"generation {prefix}top_k", 2**31) for prefix in ("", "subtalker_")),
        ("sizes codec sample_rate", 1),
        ("generation max_new_tokens", 0),
        ("graphs talker reads", {"once": -1}),
        ("graphs talker inputs", [{"name": "x", "dtype": "float32", "shape": [-1]}]),
        ("files talker.onnx size", -1),
        ("files talker.onnx sha256", "0"),
        ("id", ""),
    ],
)
def test_a_value_out_of_its_range_is_named(tmp_path: Path, path: str, value: Any) -> None:
    folder = write_bundle(tmp_path, "bundle")
    change(folder, path, value)
    message = error_of(lambda: read_manifest(folder))
    assert message.startswith("bundle: manifest.json does not fit this version (")
    name = path.split()[-1]
    assert name in message or path.split()[-2] in message


NAMES = ["../secret", "..", "a/b", "/etc/passwd", "a\\b", "C:secret", ".hidden", "", "a\nb", "x" * 129]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["files", "graphs"])
def test_a_file_name_is_plain(tmp_path: Path, name: str, place: str) -> None:
    """The secret has the size and hash that are asked for, so that only the name is wrong."""
    folder = write_bundle(tmp_path, "bundle")
    (tmp_path / "secret").write_bytes(b"\x07")
    if place == "graphs":
        change(folder, "graphs talker file", name)
    else:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        change(folder, "files", {**files, name: {"size": 1, "sha256": sha256_of(tmp_path / "secret")}})
    assert "does not fit this version" in error_of(lambda: read_manifest(folder))


def test_the_size_of_what_a_link_points_to_is_not_told(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "bundle")
    (tmp_path / "secret").write_bytes(b"x" * 4711)
    (folder / "talker.onnx").unlink()
    (folder / "talker.onnx").symlink_to(tmp_path / "secret")
    message = error_of(lambda: verify_files(folder, read_manifest(folder)))
    assert "talker.onnx does not have the 1000 bytes" in message
    assert "4711" not in message


@pytest.mark.parametrize("text", ['{"format": 1}', '{"format": 4, "voices": {}, "sizes": 3}', '{"format": 0}'])
def test_the_format_is_looked_at_first(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    version = json.loads(text)["format"]
    advice = "update the server, or convert" if version > FORMAT_VERSION else "convert"
    said = f"has format {version}, this server reads 2 and 3; {advice} the checkpoint again with this version"
    assert said in error_of(lambda: read_manifest(tmp_path))


@pytest.mark.parametrize("version", FORMATS)
def test_bundles_of_every_format_are_read(tmp_path: Path, version: int) -> None:
    assert read_manifest(write_bundle(tmp_path, "bundle", format=version)).format == version


def talker_with_cache(kind: str) -> dict[str, Any]:
    """The graphs of a manifest whose talker has a KV cache of some type."""
    graphs: dict[str, Any] = manifest_of("bundle")["graphs"]
    past = {"name": "past.0.key", "dtype": kind, "shape": ["rows", 1, "capacity", 16]}
    return graphs | {"talker": graphs["talker"] | {"inputs": [past]}}


@pytest.mark.parametrize(
    ("cache", "precision", "least"),
    [
        ("float32", "int8", 2),
        ("bfloat16", "bf16", 2),
        ("int8", "int8", 3),
        ("int8", "w8a8", 3),
        ("float32", "w8a8", 3),
    ],
)
def test_the_least_format_is_that_of_the_first_servers_that_can_speak(
    tmp_path: Path, cache: str, precision: str, least: int
) -> None:
    folder = write_bundle(tmp_path, "bundle", format=2, graphs=talker_with_cache(cache), precision=precision)
    assert read_manifest(folder).least_format == least  # and bundles of before that say 2 are read


def test_a_cache_of_an_unknown_type_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "bundle", graphs=talker_with_cache("float8e4m3fn"))
    message = error_of(lambda: read_manifest(folder))
    assert "has a KV cache in 'float8e4m3fn', this server knows float32, float16, bfloat16, int8; update" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"format": "two"}', "[" * 100_000, "\xff"])
def test_what_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, "latin-1")
    assert "manifest.json" in error_of(lambda: read_manifest(tmp_path))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_is_missing(tmp_path: Path, name: str) -> None:
    graphs = manifest_of("bundle")["graphs"]
    del graphs[name]
    folder = write_bundle(tmp_path, "bundle", graphs=graphs)
    assert f"has no graph {name}; convert" in error_of(lambda: read_manifest(folder))


@pytest.mark.parametrize("name", sorted(json.loads((RANDOM_BUNDLE / "manifest.json").read_text())["files"]))
def test_whatever_is_opened_must_be_listed(tmp_path: Path, name: str) -> None:
    folder = copy_of_random(tmp_path)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    del files[name]
    change(folder, "files", files)
    message = error_of(lambda: open_bundle(folder, provider="cpu", threads=1, slots=1))
    assert name in message
    assert "does not list" in message
    assert not (folder / STAMP_NAME).exists()


def vouch(folder: Path, name: str) -> None:
    entry = {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
    files = json.loads((folder / "manifest.json").read_text())["files"]
    change(folder, "files", {**files, name: entry})


@pytest.mark.parametrize(
    "table",
    [
        np.zeros((10, 48), np.float32),
        np.zeros((1280, 40), np.float32),
        np.zeros(1280, np.float32),
        {"one": np.zeros(3)},
    ],
)
@pytest.mark.parametrize("name", ["text_embedding.npy", CODEC_TABLE])
def test_a_table_that_the_ids_do_not_fit(tmp_path: Path, name: str, table: Any) -> None:
    folder = copy_of_random(tmp_path)
    with (folder / name).open("wb") as stream:
        np.savez(stream, **table) if isinstance(table, dict) else np.save(stream, table)
    vouch(folder, name)
    assert "embedding table" in error_of(lambda: open_bundle(folder, provider="cpu", threads=1, slots=1))


def test_a_graph_that_is_another_one(tmp_path: Path) -> None:
    folder = copy_of_random(tmp_path)
    change(folder, "graphs talker file", "codec_decoder.onnx")
    message = error_of(lambda: open_bundle(folder, provider="cpu", threads=1, slots=1))
    assert "codec_decoder.onnx has other inputs or outputs than its manifest gives the graph talker" in message


@pytest.mark.parametrize("name", ["w", "w" * 127, "w" * 200, "../secret", "gewichte_ä"])
def test_external_data_is_found(tmp_path: Path, name: str) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    graph = helper.make_graph([], "g", [], [], [weights])
    save_model(helper.make_model(graph), tmp_path / "inside.onnx")
    assert external_data(tmp_path / "inside.onnx") == set()
    outside = graph.initializer[0]
    outside.ClearField("float_data")
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", "0"), ("length", "8")):
        outside.external_data.add(key=key, value=value)
    (tmp_path / "outside.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    assert external_data(tmp_path / "outside.onnx") == {name}
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert external_data(tmp_path / "empty.onnx") == set()


def test_a_bundle_without_external_data_needs_none(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "bundle")
    verify_files(folder, read_manifest(folder))
