"""What is said of the texts of a request: how they are prepared for its model, and whether the model can read them."""

from __future__ import annotations

from functools import partial

from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.speech.request import SpeechRequest
from server.text.alphabet import adapted
from server.text.lexicon import Lexicon, LexiconError, lexicon_of
from server.text.locators import spoken_links
from server.text.prepare import Prepared, Steps, prepare
from server.text.speakable import Letters
from server.voices import languages


class Wording:
    """Prepares the texts of one request.

    Args:
        request: the request.
        manifest: the model's manifest.
        lexicon: the operator's pronunciation dictionary; the request's own entries come before it.

    Raises:
        InvalidRequestError: the request's own entries cannot be used.
    """

    def __init__(self, request: SpeechRequest, manifest: Manifest, lexicon: Lexicon) -> None:
        self._plain, self._manifest = request.text_format == "plain", manifest
        self._readable = languages.spoken(manifest.languages)
        try:
            self.lexicon = lexicon_of(request.model_dump(include={"lexicon"})["lexicon"]).before(lexicon)
        except LexiconError as error:
            raise InvalidRequestError(str(error), param="lexicon") from None

    def prepared(self, text: str, language: str, *, begins_line: bool = True, ends_line: bool = True) -> Prepared:
        """Prepare a text.

        Args:
            text: without tags and markup.
            language: a key of the manifest's languages, or `auto`.
            begins_line, ends_line: whether the text does.

        Raises:
            InvalidRequestError: the lexicon makes it too long.
        """
        known, alphabet = self._manifest.languages, self._manifest.alphabet
        alone = next(iter(known)) if len(known) == 1 else languages.AUTO
        code = languages.code(alone if language == languages.AUTO else language)
        steps = Steps(
            lexicon=self.lexicon.apply,
            links=None if self._plain else partial(spoken_links, language=code),
            alphabet=None
            if alphabet is None
            else partial(adapted, alphabet=alphabet, language=code, begins_line=begins_line, ends_line=ends_line),
        )
        try:
            return prepare(text, self._readable, steps)
        except LexiconError as error:
            raise InvalidRequestError(str(error), param="lexicon") from None


def check_letters(letters: Letters, manifest: Manifest) -> None:
    """See that the model can read the letters of a text.

    Raises:
        InvalidRequestError: it cannot.
    """
    if letters.unreadable:
        readable = ", ".join(languages.spoken(manifest.languages))
        raise InvalidRequestError(
            f"input is written in letters that this model cannot read; it speaks {readable}", param="input"
        )
