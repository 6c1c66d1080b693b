"""Whether noise is heard beside the speech that it is added to: its power against the masking threshold, by band.

The threshold is Johnston's ("Transform coding of audio signals using perceptual noise criteria", IEEE Journal on
Selected Areas in Communications 6(2), 1988). The speech's power in critical bands of one Bark is spread over its
neighbours and lowered by an offset, which is large for tones and small for noise. The bands and the spreading function
are those of Schroeder, Atal and Hall ("Optimizing digital speech coders by exploiting masking properties of the human
ear", Journal of the Acoustical Society of America 66(6), 1979). In the place of Johnston's threshold in quiet stands
the noise of a quiet room, whose spectrum is Hoth's (IEEE 269, ITU-T P.800), beside speech of `SPEECH_SPL`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

WINDOW_SECONDS = 0.02
"""Length of the windows that are compared; noise is masked for about so long before the sound that masks it."""
SPEECH_SPL = 65.0
"""Sound pressure level, in dB, at which speech is listened to: a little above that of somebody who talks a metre away
(62 dB by ANSI S3.5). Soft speech is turned up."""
_SOFTEST_SPEECH = 1e-6
"""Mean square of samples. Softer speech is taken to be as loud as this, so that silence masks what a room masks."""
HEARD_WINDOWS = 0.01
"""Part of the windows, the noisiest ones, that `loudest_db` leaves out."""
ROOM_LEVEL = 30.0
"""Of the noise of a quiet room, in dB(A)."""
_HOTH = {
    100: 32.4, 125: 30.9, 160: 29.1, 200: 27.6, 250: 26.0, 315: 24.4, 400: 22.7, 500: 21.1, 630: 19.5, 800: 17.8,
    1000: 16.2, 1250: 14.6, 1600: 12.9, 2000: 11.3, 2500: 9.6, 3150: 7.8, 4000: 5.4, 5000: 2.6, 6300: -1.3, 8000: -6.6,
}  # fmt: skip
"""Hoth's room noise at 50 dB(A), as IEEE 269-2001 tabulates it: by frequency in Hz, the sound pressure level in dB of a
band of 1 Hz. Below and above the table the values of its ends are used."""
_BARK_HZ, _BARK_SCALE = 650.0, 7.0
_NOISE_OFFSET, _TONE_OFFSET = 5.5, 14.5
_TONAL_FLATNESS = -60.0
"""Spectral flatness of a window, in dB, from which on it counts as a tone."""
_TINY = 1e-30


def noise_to_mask(found: Floats, wanted: Floats, rate: int) -> NDArray[np.float64]:
    """Power of what two recordings differ by, as a part of what the wanted one masks.

    Args:
        found: samples in [-1, 1], `[samples]`.
        wanted: the same without the noise.
        rate: samples a second.

    Returns:
        `[windows, bands]`; 1 is the masking threshold. The ratios of independent noises add up to that of their sum.
    """
    size = int(rate * WINDOW_SECONDS)
    frequencies = np.fft.rfftfreq(size, 1 / rate)[1:]
    bands = (_BARK_SCALE * np.arcsinh(frequencies / _BARK_HZ)).astype(int)
    members = np.eye(bands[-1] + 1)[bands]
    speech = _powers(wanted.astype(np.float64), size)
    noise = _powers(found.astype(np.float64) - wanted, size)
    return np.asarray((noise @ members) / _threshold(speech, members))


def loudest_db(ratios: NDArray[np.float64]) -> float:
    """The ratio, in dB, that the worst band exceeds in `HEARD_WINDOWS` of all windows; NaN if one is NaN."""
    return float(10 * np.log10(np.quantile(ratios.max(1), 1 - HEARD_WINDOWS) + _TINY))


def _powers(samples: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Mean square of each frequency but 0 in half-overlapping Hann windows, `[windows, size // 2]`."""
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
    hann = np.hanning(size + 1)[:-1]
    spectra = np.fft.rfft(windows * hann)[:, 1:]
    return np.asarray(2 * (spectra.real**2 + spectra.imag**2) / (size * np.square(hann).sum()))


def _threshold(speech: NDArray[np.float64], members: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power of the softest noise that is heard, `[windows, bands]`, by speech's powers `[windows, frequencies]`."""
    centres = np.arange(members.shape[1]) + 0.5
    distance = centres[:, None] - centres + 0.474  # of the masked band from the one that masks
    spread = 10 ** ((15.81 + 7.5 * distance - 17.5 * np.sqrt(1 + distance**2)) / 10)
    spread /= spread.sum(1, keepdims=True)
    geometric = np.exp(np.log(speech + _TINY).mean(1))
    flatness = 10 * np.log10(geometric / (speech.mean(1) + _TINY) + _TINY)
    tonality = np.minimum(flatness / _TONAL_FLATNESS, 1)[:, None]
    offset = tonality * (_TONE_OFFSET + centres) + (1 - tonality) * _NOISE_OFFSET
    loudness = max(speech.sum(1).mean(), _SOFTEST_SPEECH)
    in_the_room = loudness * 10 ** ((_room_levels(len(centres)) - _NOISE_OFFSET - SPEECH_SPL) / 10)
    return np.asarray(np.maximum((speech @ members) @ spread.T / 10 ** (offset / 10), in_the_room))


def _room_levels(bands: int) -> NDArray[np.float64]:
    """Sound pressure level in dB of the room's noise in each band."""
    edges = _BARK_HZ * np.sinh(np.arange(bands + 1) / _BARK_SCALE)
    middle = np.sqrt(np.maximum(edges[:-1], min(_HOTH)) * edges[1:])
    density = np.interp(np.log(middle), np.log(list(_HOTH)), list(_HOTH.values()))
    return np.asarray(density - 50 + ROOM_LEVEL + 10 * np.log10(np.diff(edges)))
