"""`python -m benchmarks.codec_gate`: the wider decoders that it measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.codec_gate import widened
from export.checkpoint import open_checkpoint
from export.graphs.codec_decoder import CodecDecoder, decode_whole
from tests.closeness import assert_close


@pytest.fixture
def decoder(checkpoint_of: Callable[[str], Path]) -> CodecDecoder:
    return CodecDecoder.from_checkpoint(open_checkpoint(str(checkpoint_of("short")))).requires_grad_(False)


@pytest.mark.parametrize("factor", [1, 1.5, 3])
def test_a_wider_decoder_computes_the_same(decoder: CodecDecoder, factor: float) -> None:
    config = decoder.codec_config
    codes = np.random.default_rng(0).integers(config["codebook_size"], size=(12, config["num_quantizers"]))
    width = int(factor * config["decoder_dim"])
    wide = widened(decoder, width)
    assert wide.codec_config["decoder_dim"] == width
    assert len(wide.decoder[0].conv.weight) == width
    assert_close(decode_whole(wide, codes), decode_whole(decoder, codes), 1e-4)


def test_what_follows_two_copies_of_a_channel_takes_another_part_of_each(decoder: CodecDecoder) -> None:
    channels = decoder.codec_config["decoder_dim"] // 2
    weight = widened(decoder, 4 * channels).decoder[1].block[2].conv1.conv.weight
    assert (weight[:, :channels] != weight[:, channels:]).any(dim=(0, 2)).all()


def test_a_decoder_is_not_made_narrower(decoder: CodecDecoder) -> None:
    with pytest.raises(ValueError, match="give 64 or more"):
        widened(decoder, 32)
