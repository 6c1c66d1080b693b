"""Where the committed bundle of random weights lies."""

from __future__ import annotations

from pathlib import Path

RANDOM_BUNDLE = Path(__file__).resolve().parent.parent / "models" / "qwen3_tts_random"
