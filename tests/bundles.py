"""Where the committed bundles lie."""

from __future__ import annotations

from pathlib import Path

RANDOM_BUNDLE = Path(__file__).resolve().parent / "models" / "qwen3_tts_random"
"""The bundle of random weights, which makes noise, for tests that need any codes."""
TINY_BUNDLE = Path(__file__).resolve().parent.parent / "models" / "qwen3_tts_tiny"
"""The embedded model."""
