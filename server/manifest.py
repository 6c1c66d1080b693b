"""`manifest.json`: what a bundle holds. That its files are whole is checked by `server.graphs.checking`.

`export` writes it, `server` reads it; both go through the models below, so that one file says what the format is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from server.errors import first_fault

OLDEST_FORMAT, FORMAT_VERSION = 2, 3
FORMATS = (OLDEST_FORMAT, FORMAT_VERSION)
"""What this server reads. Format 3 came with the precision `w8a8` and with KV caches in 8 bits."""
MANIFEST_NAME = "manifest.json"
TOKENIZER, TEXT_TABLE, CODEC_TABLE = "tokenizer.json", "text_embedding.npy", "codec_embedding.npy"
PREDICTOR_TABLE = "predictor_embedding.npy"
"""The code predictor's embeddings, in a bundle that clones voices."""
TABLES = (TEXT_TABLE, CODEC_TABLE, PREDICTOR_TABLE)
"""Files of which rows are looked up on disk."""
GRAPHS = ("talker", "code_predictor", "codec_decoder")
"""The graphs that every bundle has, by their keys in `Manifest.graphs`."""
SPEAKER_ENCODER, CODEC_ENCODER = CLONING_GRAPHS = ("speaker_encoder", "codec_encoder")
"""The graphs that a bundle has besides if it clones voices; they are loaded only while a recording is encoded."""

CACHE_TYPES = ("float32", "float16", "bfloat16", "int8")
"""Of the talker's KV cache, as `Manifest.kv_cache` says them."""

ModelType = Literal["custom_voice", "voice_design", "base"]
Precision = Literal["fp32", "int8", "w8a8", "mixed", "int4", "bf16", "fp16", "int4_bf16"]
DEFAULT_PRECISION: Precision = "int8"
"""What the exporter makes where nothing else is asked for; the ids of such bundles do not name it."""
Size = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Id = Annotated[int, Field(ge=0)]
Name = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
_DEVICE = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9])(?:\..*)?", re.IGNORECASE | re.ASCII)
"""https://learn.microsoft.com/windows/win32/fileio/naming-a-file"""


def is_device(name: str) -> bool:
    """Whether Windows takes a file or folder of this name, with any ending, for a device, so that it cannot be made."""
    return bool(_DEVICE.fullmatch(name))


def _for_every_system(name: str) -> str:
    if is_device(name) or name.endswith("."):
        raise ValueError(f"{name!r} cannot be a file's name on Windows")
    return name


FileName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=128),
    AfterValidator(_for_every_system),
]
"""A file of the folder itself: no separator, no drive, not hidden, and so never `..`."""
Alphabet = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\n\r]*$")]
"""Distinct characters in any order; a blank among them stands for every white space."""

_LONGEST_REASON = 300  # characters
_MOST = 100.0
"""Above this, or below its inverse, sampling parameters leave nothing but rounding errors of float32 logits."""
_MOST_CODES = 2**31 - 1  # of `top_k`: the graphs take integers


class BundleError(ValueError):
    """A bundle that cannot be served; the message names the file and what to do."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TalkerSizes(_Strict):
    """Shapes of the talker, as its graph was exported."""

    hidden_size: Size
    num_layers: Size
    num_heads: Size
    num_kv_heads: Size
    head_dim: Size
    vocab_size: Size
    max_positions: Size = Field(description="Positions in the rotary tables: the longest prompt plus frames.")

    @model_validator(mode="after")
    def _heads_share_evenly(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads {self.num_kv_heads} does not divide num_heads {self.num_heads}")
        return self


class CodePredictorSizes(_Strict):
    """Shapes of the code predictor."""

    hidden_size: Size
    num_layers: Size
    vocab_size: Size
    num_code_groups: Size = Field(description="Codes per frame, the talker's code 0 included.")


class CodecSizes(_Strict):
    """Shapes of the codec decoder."""

    num_quantizers: Size
    codebook_size: Size
    sample_rate: Literal[8_000, 12_000, 16_000, 24_000, 48_000] = Field(description="Hz, one that each format can have")
    samples_per_frame: Size


class Sizes(_Strict):
    talker: TalkerSizes
    code_predictor: CodePredictorSizes
    codec: CodecSizes

    @model_validator(mode="after")
    def _codes_fit(self) -> Self:
        predictor, codec = self.code_predictor, self.codec
        if predictor.num_code_groups != codec.num_quantizers:
            raise ValueError(
                f"codec.num_quantizers {codec.num_quantizers} is not code_predictor.num_code_groups "
                f"{predictor.num_code_groups}"
            )
        if predictor.vocab_size > codec.codebook_size:
            raise ValueError(
                f"code_predictor.vocab_size {predictor.vocab_size} is above codec.codebook_size {codec.codebook_size}"
            )
        return self


class TokenIds(_Strict):
    """Control ids: text side (`im_*`, `tts_*`) and codec side (`codec_*`)."""

    im_start: Id
    im_end: Id
    tts_bos: Id
    tts_eos: Id
    tts_pad: Id
    codec_bos: Id
    codec_eos: Id
    codec_pad: Id
    codec_think: Id
    codec_nothink: Id
    codec_think_bos: Id
    codec_think_eos: Id


class Speaker(_Strict):
    id: Id
    dialect: str | None = Field(None, description="Language that replaces Chinese or auto, such as sichuan_dialect.")


class GenerationDefaults(_Strict):
    """`generation_config.json`; where the file is silent, the official package's own defaults."""

    do_sample: bool = True
    temperature: float = Field(0.9, ge=0, le=_MOST)
    top_k: int = Field(50, ge=0, le=_MOST_CODES)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.05, ge=1 / _MOST, le=_MOST)
    subtalker_dosample: bool = True
    subtalker_temperature: float = Field(0.9, ge=0, le=_MOST)
    subtalker_top_k: int = Field(50, ge=0, le=_MOST_CODES)
    subtalker_top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(2048, ge=1)


class TensorSpec(_Strict):
    name: str
    dtype: str
    shape: tuple[Count | str, ...] = Field(description="An int where fixed, the axis name where dynamic.")


class WeightReads(_Strict):
    """Weight bytes that one run of a graph reads: `once`, and `looped` read again in each of `passes` steps."""

    once: Count
    looped: Count = 0
    passes: Count = 0

    @property
    def total(self) -> int:
        """Bytes a run."""
        return self.once + self.looped * self.passes


class Graph(_Strict):
    file: FileName
    precision: str
    reads: WeightReads | None = Field(default=None, description="For one row; bundles of an older exporter do not say.")
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class FileEntry(_Strict):
    size: Count = Field(description="bytes")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Source(_Strict):
    model: str = Field(description="Hub id, or the name of the local folder.")
    revision: str | None = None
    license: str | None = Field(
        default=None, description="The checkpoint's, as its own card names it. Bundles of an older exporter do not say."
    )


class Manifest(_Strict):
    """The whole of `manifest.json`."""

    format: Literal[2, 3] = Field(
        description="The oldest format whose servers can speak with the bundle, so that only those that cannot refuse."
    )
    id: Name
    description: str
    noise: bool = Field(default=False, description="The weights are random: no runaway guard can judge the sound.")
    source: Source
    model_type: ModelType
    model_size: str
    follows_instructions: bool
    alphabet: Alphabet | None = Field(
        default=None,
        description="The characters of the texts that it was trained on, where it reads no others; null if it reads "
        "whatever people write. Bundles of an older exporter do not say.",
    )
    whole_text: bool = Field(
        default=False,
        description="It was trained on texts that are there before its first frame, and on none that come while it "
        "speaks. Bundles of an older exporter do not say.",
    )
    precision: Precision
    sizes: Sizes
    ids: TokenIds
    speakers: dict[Name, Speaker]
    languages: dict[Name, Id]
    generation: GenerationDefaults
    graphs: dict[str, Graph]
    files: dict[FileName, FileEntry]
    parity: dict[str, Any]
    tools: dict[str, str]

    @property
    def clones(self) -> bool:
        """Whether the model speaks with voices of recordings."""
        return self.model_type == "base"

    @property
    def kv_cache(self) -> str:
        """The element type of the talker's KV cache, as its graph declares it: `int8`, `float32` or a GPU's."""
        kinds = (spec.dtype for spec in self.graphs["talker"].inputs if spec.name.startswith("past."))
        return next(kinds, "float32")

    @property
    def least_format(self) -> int:
        """The oldest format whose servers can speak with such a bundle."""
        return 3 if self.precision == "w8a8" or self.kv_cache == "int8" else OLDEST_FORMAT

    @model_validator(mode="after")
    def _ids_fit(self) -> Self:
        most = self.sizes.talker.vocab_size
        numbers = {f"ids.{name}": number for name, number in self.ids if name.startswith("codec_")}
        numbers |= {f"languages.{name}": number for name, number in self.languages.items()}
        numbers |= {f"speakers.{name}": speaker.id for name, speaker in self.speakers.items()}
        for name, number in numbers.items():
            if number >= most:
                raise ValueError(f"{name} is {number}, and the talker's vocabulary has {most} ids")
        for name, speaker in self.speakers.items():
            if speaker.dialect is not None and speaker.dialect not in self.languages:
                raise ValueError(f"speakers.{name} has the dialect {speaker.dialect!r}, which languages lacks")
        return self


class _Format(BaseModel):
    """What is read before all else: another format may have other fields."""

    format: int


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
        BundleError: no manifest, not JSON, another format version, fields that do not fit, a graph that is missing, a
            KV cache of an unknown type, or a file that is opened and not listed.
    """
    path = folder / MANIFEST_NAME
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise BundleError(f"{folder.name}: {MANIFEST_NAME} is missing; convert the checkpoint again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder.name}: {MANIFEST_NAME} cannot be read ({type(error).__name__})") from error
    try:
        version = _Format.model_validate_json(text).format
        if version not in FORMATS:
            update = "update the server, or " if version > FORMAT_VERSION else ""
            raise BundleError(
                f"{folder.name}: {MANIFEST_NAME} has format {version}, this server reads "
                f"{' and '.join(map(str, FORMATS))}; {update}convert the checkpoint again with this version"
            )
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        place, reason = first_fault(error)
        where = ".".join(place) or "the document"
        what = " ".join(f"{where}: {reason}".split())[:_LONGEST_REASON]  # it may quote a name, whatever that holds
        raise BundleError(f"{folder.name}: {MANIFEST_NAME} does not fit this version ({what}); convert again") from None
    _check_whole(folder.name, manifest)
    return manifest


def _check_whole(bundle: str, manifest: Manifest) -> None:
    """See that the graphs are all there, of a kind that can be run, and that whatever is opened has a hash."""
    cloning = manifest.clones
    for name in (*GRAPHS, *(CLONING_GRAPHS if cloning else ())):
        if name not in manifest.graphs:
            raise BundleError(f"{bundle}: {MANIFEST_NAME} has no graph {name}; convert the checkpoint again")
    if manifest.kv_cache not in CACHE_TYPES:
        raise BundleError(
            f"{bundle}: {MANIFEST_NAME} has a KV cache in {manifest.kv_cache!r:.40}, this server knows "
            f"{', '.join(CACHE_TYPES)}; update the server, or convert the checkpoint again with this version"
        )
    tables = TABLES if cloning else (TEXT_TABLE, CODEC_TABLE)
    for file in (TOKENIZER, *tables, *(graph.file for graph in manifest.graphs.values())):
        if file not in manifest.files:
            raise BundleError(f"{bundle}: {MANIFEST_NAME} does not list {file} in files; convert the checkpoint again")
