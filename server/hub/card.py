"""The model card of a repository of bundles, made from their manifests."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import ModelCardData

from server import __version__
from server.manifest import Manifest
from server.models.names import HubBundle
from server.voices import languages

MARK = "<!-- made by `qwen3-tts push` from the manifests; write your own card without this line and it stays -->"


def model_card(repo: str, manifests: Sequence[Manifest], license_id: str) -> str:
    """Write the card.

    Args:
        repo: the repository, `owner/name`.
        manifests: of all its bundles, of one checkpoint, the newest first.
        license_id: the Hub's id of the licence that the weights are under.
    """
    newest, source = manifests[0], manifests[0].source.model
    spoken = languages.spoken(newest.languages)
    data = ModelCardData(
        license=license_id,
        language=[code for name in spoken if (code := languages.code(name))] or None,
        base_model=source if "/" in source else None,
        library_name="onnx",
        pipeline_tag="text-to-speech",
        tags=["qwen3-tts", "onnx", "onnxruntime"],
    )
    wanted = HubBundle(repo, newest.precision)
    checkpoint = f"[{source}](https://huggingface.co/{source})" if "/" in source else f"`{source}`"
    commit = f", commit `{newest.source.revision}`" if newest.source.revision else ""
    speakers = ", ".join(sorted(newest.speakers)) or "none of its own; a description makes the voice"
    use = [
        "```sh",
        f"mkdir -p models && qwen3-tts pull {wanted}",
        f"KW_MODEL={wanted.id} qwen3-tts serve",
        "```",
    ]
    table = [
        "| precision | MB | codes equal to PyTorch's float32, step by step | largest error of the waveform |",
        "|---|---|---|---|",
        *map(_row, manifests),
    ]
    tools = ", ".join(f"{name} {version}" for name, version in newest.tools.items())
    parts = [
        f"---\n{data.to_yaml()}\n---",
        MARK,
        f"# {repo.partition('/')[2]}",
        " ".join(newest.description.split()),
        f"ONNX bundles for the server `qwen3-tts-edge`, converted from {checkpoint}{commit}. The weights are those of "
        f"that checkpoint and under its licence, {license_id}. Languages: {', '.join(spoken) or 'not said'}. "
        f"Speakers: {speakers}.",
        "## Use",
        "With the server installed, in a folder of your choice:",
        "\n".join(use),
        f"`KW_PULL=on KW_MODEL={wanted} qwen3-tts serve` fetches it at the first start. Every file is compared with "
        "the SHA-256 of its manifest before it is used.",
        "## Bundles",
        "\n".join(table),
        "What the table says of codes and waveform is each bundle's own report, `parity` in its manifest, measured "
        "when it was converted: every step was fed what the float32 model was fed. The full scale of a waveform is 1.",
        f"Made with {tools or 'tools that its manifest does not name'}; pushed by qwen3-tts-edge {__version__}.",
    ]
    return "\n\n".join(parts) + "\n"


def _row(manifest: Manifest) -> str:
    size = sum(entry.size for entry in manifest.files.values())
    codes = "; ".join(
        f"{name}: {counted['equal']} of {counted['compared']}"
        for name, counted in manifest.parity.get("codes", {}).items()
    )
    error = manifest.parity.get("graphs", {}).get("codec_decoder", {}).get("max_error")
    waveform = "not measured" if error is None else f"{error:.1e}"
    return f"| {manifest.precision} | {size / 1e6:,.1f} | {codes or 'not measured'} | {waveform} |"
