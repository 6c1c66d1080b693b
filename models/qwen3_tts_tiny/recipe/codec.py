"""The official codec decoder while it learns."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layout import CODEBOOK_SIZE, CODEBOOKS, LATENT, empty_decoder
from snake import use_fused_snake
from speech_codes import COARSE, FINE, PITCH
from speech_data import MELS

WIDTH = 64
"""Width of the codebook vectors: half the decoder's `codebook_dim`."""


class Codec(nn.Module):
    """The official decoder, whose trunk (up to 50 Hz) can also be read as a spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        self.books = nn.Parameter(torch.randn(CODEBOOKS, CODEBOOK_SIZE, WIDTH))
        self.decoder = empty_decoder()
        use_fused_snake(self.decoder)
        with torch.no_grad():
            for block in (stage[1] for stage in self.decoder.upsample):
                block.gamma.fill_(0.1)  # 1e-6 learns too slowly for a short training
            for name, scale in self.decoder.pre_transformer.named_parameters():
                if name.endswith("layer_scale.scale"):
                    scale.fill_(0.1)
        self.spectrum_head = nn.Conv1d(LATENT, 2 * MELS, 1)

    def place_centres(self, centres: dict[str, NDArray[np.float32]]) -> None:
        """Initialise the vectors of codebooks that quantise something by what their centres differ in."""
        with torch.no_grad():
            for level, name in ((PITCH, "pitch"), (COARSE, "coarse"), (FINE, "fine")):
                values = centres[name] - centres[name].mean(0)
                self.books[level, :, : values.shape[1]] = 2 * torch.from_numpy(values / values.std())
                self.books[level, :, values.shape[1] :] *= 0.1

    def learned(self) -> list[nn.Parameter]:
        """Return the parameters without the official class's own codebooks, which `assemble.py` fills."""
        return [value for name, value in self.named_parameters() if "_codebook" not in name]

    def trunk(self, codes: Tensor) -> Tensor:
        """Codes int64 `[batch, CODEBOOKS, frames]` to `[batch, LATENT, 4 * frames]`."""
        first, *others = (book[codes[:, level]].transpose(1, 2) for level, book in enumerate(self.books))
        quantizer = self.decoder.quantizer
        hidden = quantizer.rvq_first.output_proj(first) + quantizer.rvq_rest.output_proj(torch.stack(others).sum(0))
        hidden = self.decoder.pre_conv(hidden).transpose(1, 2)
        hidden = self.decoder.pre_transformer(inputs_embeds=hidden).last_hidden_state.transpose(1, 2)
        for stage in self.decoder.upsample:
            for block in stage:
                hidden = block(hidden)
        return hidden

    def spectrum(self, trunk: Tensor) -> Tensor:
        """Log-mel `[batch, MELS, 8 * frames]` read from the trunk."""
        both = self.spectrum_head(trunk)
        return both.unflatten(1, (MELS, 2)).permute(0, 1, 3, 2).flatten(2)

    def wave(self, trunk: Tensor, halves: int = 0) -> Tensor:
        """Trunk to audio `[batch, samples]`, the first `halves` of the blocks in bfloat16."""
        for number, block in enumerate(self.decoder.decoder):
            with torch.autocast("cpu", torch.bfloat16, enabled=number < halves):
                trunk = block(trunk)
            if number + 1 >= halves:
                trunk = trunk.float()
        return trunk[:, 0]
