"""What there is to choose from, while bundles come."""

from __future__ import annotations

from pathlib import Path

from server.http.listing import Listing
from server.models.catalogue import Bundle, Bundles
from server.voices.folder import VoiceFolder
from tests.server.fakes import write_bundle


def test_a_bundle_is_listed_when_it_has_come(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path / "custom", 0)
    listing = Listing(Bundles([bundle], "custom"), {}, VoiceFolder(None))
    assert listing.public_ids() == ((), ())
    write_bundle(tmp_path, "custom")
    bundle.arrive()
    models, voices = listing.public_ids()
    assert models == ("custom",)
    assert {"ryan", "alloy", "af_heart"} <= set(voices)


def test_where_there_is_no_model_there_are_no_voices() -> None:
    assert Listing(Bundles([], None), {}, VoiceFolder(None)).public_ids() == ((), ())
