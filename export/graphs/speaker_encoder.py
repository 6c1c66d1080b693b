"""The speaker encoder of `base` checkpoints: a waveform to the embedding that stands for its speaker in a prompt.

Structure and names follow the checkpoint's `speaker_encoder`, an ECAPA-TDNN (https://arxiv.org/abs/2005.07143) over a
log-mel spectrogram. The spectrogram is part of the graph: its Fourier transform is a convolution with fixed kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.audio_utils import mel_filter_bank

from export.checkpoint import Checkpoint
from export.graphs.graph import Axes, GraphConfig
from server.engine.reference import SAMPLE_RATE

FFT, HOP, MEL_BANDS = 1024, 256, 128
"""Samples of a window of the spectrogram, samples from one to the next, and its bands; fixed in the package's code."""
MAGNITUDE_EPSILON, LEAST_MEL, LEAST_VARIANCE = 1e-9, 1e-5, 1e-12


class MelSpectrogram(nn.Module):
    """Log-mel spectrogram as the official package computes it: `[rows, samples]` to `[rows, bands, frames]`.

    Hann window, no centring but reflected edges, magnitudes, bands on Slaney's scale with Slaney's norm, natural
    logarithm. The windowed cosines and sines are computed in float64 and stored in float32.
    """

    def __init__(self) -> None:
        super().__init__()
        angles = 2 * np.pi * np.outer(np.arange(FFT // 2 + 1), np.arange(FFT)) / FFT
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
        waves = np.concatenate((np.cos(angles), np.sin(angles))) * window
        bands = mel_filter_bank(
            FFT // 2 + 1, MEL_BANDS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("waves", torch.from_numpy(waves.astype(np.float32))[:, None], persistent=False)
        self.register_buffer("bands", torch.from_numpy(bands.T.astype(np.float32)), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        edge = (FFT - HOP) // 2
        padded = nn.functional.pad(waveform[:, None], (edge, edge), mode="reflect")
        real, imaginary = nn.functional.conv1d(padded, self.waves, stride=HOP).chunk(2, dim=1)
        magnitude = (real.square() + imaginary.square() + MAGNITUDE_EPSILON).sqrt()
        return (self.bands @ magnitude).clamp(min=LEAST_MEL).log()


class SameConv(nn.Module):
    """Convolution whose output is as long as its input, the edges being reflected."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
        edges = dilation * (kernel - 1)
        self.edges = (edges // 2, edges - edges // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x, self.edges, mode="reflect") if any(self.edges) else x)


class TimeDelay(SameConv):
    """A convolution and ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Res2Net(nn.Module):
    """Parts of the channels, each convolved with what came of the one before it."""

    def __init__(self, channels: int, scale: int, kernel: int, dilation: int) -> None:
        super().__init__()
        part = channels // scale
        self.blocks = nn.ModuleList(TimeDelay(part, part, kernel, dilation) for _ in range(scale - 1))

    def forward(self, x: Tensor) -> Tensor:
        first, *others = x.chunk(len(self.blocks) + 1, dim=1)
        outputs = [first]
        for block, part in zip(self.blocks, others, strict=True):
            outputs.append(block(part if len(outputs) == 1 else part + outputs[-1]))
        return torch.cat(outputs, dim=1)


class SqueezeExcitation(nn.Module):
    """Scales each channel by what the means of all channels say."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(channels, squeezed, 1), nn.Conv1d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(x.mean(dim=2, keepdim=True)).relu()).sigmoid()


class SpeakerBlock(nn.Module):
    """TDNN, Res2Net, TDNN, squeeze-and-excitation, residual."""

    def __init__(self, channels: int, scale: int, squeezed: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.tdnn1, self.tdnn2 = TimeDelay(channels, channels), TimeDelay(channels, channels)
        self.res2net_block = Res2Net(channels, scale, kernel, dilation)
        self.se_block = SqueezeExcitation(channels, squeezed)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x))))


class AttentivePooling(nn.Module):
    """Mean and standard deviation over time, by weights that are learnt: `[rows, channels, frames]` to twice as many
    channels."""

    def __init__(self, channels: int, attention_channels: int) -> None:
        super().__init__()
        self.tdnn = TimeDelay(3 * channels, attention_channels)
        self.conv = nn.Conv1d(attention_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=2, keepdim=True)
        deviation = (x - mean).square().mean(dim=2, keepdim=True).clamp(min=LEAST_VARIANCE).sqrt()
        context = torch.cat((x, mean.expand_as(x), deviation.expand_as(x)), dim=1)
        weights = self.conv(self.tdnn(context).tanh()).softmax(dim=2)
        mean = (weights * x).sum(dim=2, keepdim=True)
        deviation = (weights * (x - mean).square()).sum(dim=2, keepdim=True).clamp(min=LEAST_VARIANCE).sqrt()
        return torch.cat((mean, deviation), dim=1)


class SpeakerEncoder(nn.Module):
    """The whole encoder: `waveform` float32 `[1, samples]` at 24 kHz, at least 1280 of them, to `[1, hidden_size]`."""

    PREFIX = "speaker_encoder."
    """How the names of its tensors begin in the checkpoint."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = PretrainedConfig()
        channels, kernels, dilations = config["enc_channels"], config["enc_kernel_sizes"], config["enc_dilations"]
        scale, squeezed = config["enc_res2net_scale"], config["enc_se_channels"]
        self.blocks = nn.ModuleList([TimeDelay(config["mel_dim"], channels[0], kernels[0], dilations[0])])
        self.blocks.extend(
            SpeakerBlock(width, scale, squeezed, kernel, dilation)
            for width, kernel, dilation in zip(channels[1:-1], kernels[1:-1], dilations[1:-1], strict=True)
        )
        self.mfa = TimeDelay(channels[-1], channels[-1], kernels[-1], dilations[-1])
        self.asp = AttentivePooling(channels[-1], config["enc_attention_channels"])
        self.fc = nn.Conv1d(2 * channels[-1], config["enc_dim"], 1)

    @classmethod
    def on_meta(cls, checkpoint: Checkpoint) -> SpeakerEncoder:
        """Build the module without weights."""
        with torch.device("meta"):
            return cls(checkpoint.config["speaker_encoder_config"])

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> SpeakerEncoder:
        """Build the module with the checkpoint's weights, in float32."""
        encoder = cls.on_meta(checkpoint)
        checkpoint.load_into(encoder, cls.PREFIX)
        encoder.mel = MelSpectrogram()
        return encoder.eval()

    def forward(self, waveform: Tensor) -> tuple[Tensor]:
        x, outputs = self.mel(waveform), []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return (self.fc(self.asp(self.mfa(torch.cat(outputs[1:], dim=1)))).squeeze(-1),)


class SpeakerEncoderOnnxConfig(GraphConfig):
    """Declaration of the speaker encoder graph."""

    module: SpeakerEncoder

    @property
    def inputs(self) -> Axes:
        return {"waveform": {1: "samples"}}

    @property
    def outputs(self) -> Axes:
        return {"embedding": {}}

    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        return {"waveform": 0.1 * torch.randn(1, SAMPLE_RATE)}
