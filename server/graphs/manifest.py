"""`manifest.json`: what a bundle holds, and the check that it is whole.

`export` writes it, `server` reads it; both go through the models below, so that one file says what the format is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.graphs.cores import usable_cores

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

ModelType = Literal["custom_voice", "voice_design"]
Precision = Literal["fp32", "int8", "mixed", "int4", "bf16", "fp16", "int4_bf16"]


class BundleError(ValueError):
    """A bundle that cannot be served; the message names the file and what to do."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TalkerSizes(_Strict):
    """Shapes of the talker, as its graph was exported."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int = Field(description="Positions in the rotary tables: the longest prompt plus frames.")


class CodePredictorSizes(_Strict):
    """Shapes of the code predictor."""

    hidden_size: int
    num_layers: int
    vocab_size: int
    num_code_groups: int = Field(description="Codes per frame, the talker's code 0 included.")


class CodecSizes(_Strict):
    """Shapes of the codec decoder."""

    num_quantizers: int
    codebook_size: int
    sample_rate: int = Field(description="Hz")
    samples_per_frame: int


class Sizes(_Strict):
    talker: TalkerSizes
    code_predictor: CodePredictorSizes
    codec: CodecSizes


class TokenIds(_Strict):
    """Control ids: text side (`im_*`, `tts_*`) and codec side (`codec_*`)."""

    im_start: int
    im_end: int
    tts_bos: int
    tts_eos: int
    tts_pad: int
    codec_bos: int
    codec_eos: int
    codec_pad: int
    codec_think: int
    codec_nothink: int
    codec_think_bos: int
    codec_think_eos: int


class Speaker(_Strict):
    id: int
    dialect: str | None = Field(None, description="Language that replaces Chinese or auto, such as sichuan_dialect.")


class GenerationDefaults(_Strict):
    """`generation_config.json`; where the file is silent, the official package's own defaults."""

    do_sample: bool = True
    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    subtalker_dosample: bool = True
    subtalker_temperature: float = 0.9
    subtalker_top_k: int = 50
    subtalker_top_p: float = 1.0
    max_new_tokens: int = 2048


class TensorSpec(_Strict):
    name: str
    dtype: str
    shape: tuple[int | str, ...] = Field(description="An int where fixed, the axis name where dynamic.")


class WeightReads(_Strict):
    """Weight bytes that one run of a graph reads: `once`, and `looped` read again in each of `passes` steps."""

    once: int
    looped: int = 0
    passes: int = 0

    @property
    def total(self) -> int:
        """Bytes a run."""
        return self.once + self.looped * self.passes


class Graph(_Strict):
    file: str
    precision: str
    reads: WeightReads | None = Field(default=None, description="For one row; bundles of an older exporter do not say.")
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class FileEntry(_Strict):
    size: int = Field(description="bytes")
    sha256: str


class Source(_Strict):
    model: str = Field(description="Hub id, or the name of the local folder.")
    revision: str | None = None


class Manifest(_Strict):
    """The whole of `manifest.json`."""

    format: int
    id: str
    description: str
    noise: bool = Field(default=False, description="The weights are random: no runaway guard can judge the sound.")
    source: Source
    model_type: ModelType
    model_size: str
    follows_instructions: bool
    precision: Precision
    sizes: Sizes
    ids: TokenIds
    speakers: dict[str, Speaker]
    languages: dict[str, int]
    generation: GenerationDefaults
    graphs: dict[str, Graph]
    files: dict[str, FileEntry]
    parity: dict[str, Any]
    tools: dict[str, str]


def sha256_of(path: Path, on_bytes: Callable[[int], object] = lambda count: None) -> str:
    """Hex SHA-256 of a file, read in blocks; `on_bytes` hears how many bytes each block had."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            on_bytes(len(block))
    return digest.hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `folder/manifest.json` without touching the other files.

    Raises:
        BundleError: no manifest, not JSON, another format version, or fields that do not fit.
    """
    path = folder / MANIFEST_NAME
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise BundleError(f"{folder.name}: {MANIFEST_NAME} is missing; convert the checkpoint again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder.name}: {MANIFEST_NAME} cannot be read ({type(error).__name__})") from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise BundleError(
            f"{folder.name}: {MANIFEST_NAME} does not fit this version ({where}: {first['msg']}); convert again"
        ) from None
    if manifest.format != FORMAT_VERSION:
        raise BundleError(
            f"{folder.name}: {MANIFEST_NAME} has format {manifest.format}, this server reads {FORMAT_VERSION}; "
            "convert the checkpoint again with this version"
        )
    return manifest


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compare size and SHA-256 of every file of the bundle with its manifest.

    Raises:
        BundleError: a file is missing, has another size, or another hash.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder.name}: {name} is missing; convert the checkpoint again")
        if path.stat().st_size != entry.size:
            raise BundleError(
                f"{folder.name}: {name} has {path.stat().st_size} bytes instead of {entry.size}; "
                "copy the bundle again or convert the checkpoint again"
            )
    names = sorted(manifest.files, key=lambda name: -manifest.files[name].size)  # the longest first, so none is late
    with ThreadPoolExecutor(usable_cores()) as pool:  # hashing lets other threads run
        for name, found in zip(names, pool.map(lambda name: sha256_of(folder / name), names), strict=True):
            if found != manifest.files[name].sha256:
                raise BundleError(
                    f"{folder.name}: {name} is damaged (its SHA-256 is not the manifest's); "
                    "copy the bundle again or convert the checkpoint again"
                )
