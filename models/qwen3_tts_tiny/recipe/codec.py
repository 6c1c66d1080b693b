"""The codec while it learns: an encoder that is thrown away, the quantizer, and the official decoder behind it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from layout import CODEBOOK_SIZE, CODEBOOKS, LATENT, empty_decoder
from snake import use_fused_snake
from speech_data import MELS, PHONES, LogMel

WIDTH = 64
"""Of codebook vectors: half the decoder's `codebook_dim`."""
_PHONEMES = 256
_DECAY = 0.97
_RARE = 0.25
"""A codebook entry that is chosen less often than this, in times a step, moves to a vector of the batch."""


class Encoder(nn.Module):
    """Log-mel `[batch, MELS, 8 * frames]` to `[batch, WIDTH, frames]`; sees the future, so for training only."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self._layers = nn.ModuleList([nn.Conv1d(MELS, width, 6, stride=2, padding=2)])
        for _ in range(2):
            self._layers += [_Residual(width), nn.Conv1d(width, width, 4, stride=2, padding=1)]
        self._layers += [_Residual(width), _Residual(width)]
        self._out = nn.Conv1d(width, WIDTH, 1)

    def forward(self, mel: Tensor) -> Tensor:
        hidden = mel / 4 + 1
        for layer in self._layers:
            hidden = layer(hidden)
        return self._out(functional.gelu(hidden))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self._first, self._second = nn.Conv1d(width, width, 3, padding=1), nn.Conv1d(width, width, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self._second(functional.gelu(self._first(functional.gelu(hidden))))


class ResidualQuantizer(nn.Module):
    """Residual vector quantisation with codebooks that follow running means (van den Oord et al. 2017, appendix A)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(CODEBOOKS, CODEBOOK_SIZE, WIDTH))
        self.register_buffer("usage", torch.zeros(CODEBOOKS, CODEBOOK_SIZE))

    def books(self) -> Tensor:
        """`[CODEBOOKS, CODEBOOK_SIZE, WIDTH]`."""
        return self.sums / self.usage.clamp(min=1e-5)[..., None]

    def encode(self, vectors: Tensor, learn: bool = False) -> Tensor:
        """Codes int64 `[n, CODEBOOKS]` of vectors `[n, WIDTH]`; with `learn` the codebooks move."""
        residual, codes = vectors.detach(), []
        for level in range(CODEBOOKS):
            if learn and not self.usage[level].any():
                self._restart(level, torch.ones(CODEBOOK_SIZE, dtype=torch.bool), residual)
            book = self.sums[level] / self.usage[level].clamp(min=1e-5)[:, None]
            chosen = (residual @ book.T - book.square().sum(1) / 2).argmax(1)
            if learn:
                self._follow(level, chosen, residual)
            codes.append(chosen)
            residual = residual - book[chosen]
        return torch.stack(codes, 1)

    def _follow(self, level: int, chosen: Tensor, residual: Tensor) -> None:
        counts = torch.bincount(chosen, minlength=CODEBOOK_SIZE).float()
        sums = torch.zeros(CODEBOOK_SIZE, WIDTH).index_add_(0, chosen, residual)
        self.usage[level].mul_(_DECAY).add_(counts, alpha=1 - _DECAY)
        self.sums[level].mul_(_DECAY).add_(sums, alpha=1 - _DECAY)
        rare = self.usage[level] < _RARE
        if rare.any():
            self._restart(level, rare, residual)

    def _restart(self, level: int, which: Tensor, residual: Tensor) -> None:
        count = int(which.sum())
        self.sums[level, which] = residual[torch.randint(len(residual), (count,))]
        self.usage[level, which] = 1.0


class Codec(nn.Module):
    """Encoder, quantizer and the official decoder; the decoder's trunk (up to 50 Hz) can be read as a spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        self.mel = LogMel()
        self.encoder = Encoder()
        self.quantizer = ResidualQuantizer()
        self.decoder = empty_decoder()
        use_fused_snake(self.decoder)
        with torch.no_grad():
            for block in (stage[1] for stage in self.decoder.upsample):
                block.gamma.fill_(0.1)  # 1e-6 learns too slowly for a short training
            for name, scale in self.decoder.pre_transformer.named_parameters():
                if name.endswith("layer_scale.scale"):
                    scale.fill_(0.1)
        self.spectrum_head = nn.Conv1d(LATENT, 2 * MELS, 1)
        self.phoneme_head = nn.Linear(WIDTH, PHONES * _PHONEMES)

    def dequantize(self, codes: Tensor, vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decoder input `[batch, codebook_dim, frames]` and the first codebook's vectors `[batch, WIDTH, frames]`.

        Args:
            codes: int64 `[batch, CODEBOOKS, frames]`.
            vectors: what was quantised, `[batch, WIDTH, frames]`; gradients go straight through to it.
        """
        books = self.quantizer.books()
        first, *others = (books[level][codes[:, level]].transpose(1, 2) for level in range(CODEBOOKS))
        rest = torch.stack(others).sum(0)
        if vectors is not None:
            first = vectors + (first - vectors).detach()
            rest = (vectors - first) + (rest - vectors + first).detach()
        quantizer = self.decoder.quantizer
        return quantizer.rvq_first.output_proj(first) + quantizer.rvq_rest.output_proj(rest), first

    def trunk(self, hidden: Tensor) -> Tensor:
        """Decoder input to `[batch, LATENT, 4 * frames]`."""
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

    def wave(self, trunk: Tensor) -> Tensor:
        """Trunk to audio `[batch, samples]`."""
        for block in self.decoder.decoder:
            trunk = block(trunk)
        return trunk[:, 0]

    def phonemes(self, first: Tensor) -> Tensor:
        """Logits `[batch, frames, PHONES, phonemes]` from the first codebook alone."""
        return self.phoneme_head(first.transpose(1, 2)).unflatten(2, (PHONES, _PHONEMES))
