"""Texts as people write them, for the tests of every step that prepares a text."""

from __future__ import annotations

import regex
from hypothesis import strategies as st

CLEAN = {
    "zh": "他说：“好的。”……然后——走了！《红楼梦》是1791年印的，对吗？",
    "ja": "「はい、そうです……」と彼女は言った。コーヒーを２杯〜３杯、1,200円。",
    "ko": "그는 “안녕하세요”라고 말했다… 오늘은 3.5도입니다!",
    "de": "„Ja“, sagte er – ‚wirklich‘? Am 3. Oktober kostet die Straße 1.234,50 € (ca. 5 %).",
    "fr": "« Bonjour », dit-il… C’est l’été, n’est-ce pas ? L’œuvre coûte 3,50 €.",
    "ru": "«Да», — сказал он… Это №5, и ещё 3,5 кг; Пётр ушёл.",
    "pt": "“Olá!”, disse a Dra. Ana — às 5h, em São Paulo. Custa R$ 3,50.",
    "es": "¿Cómo está? ¡Muy bien! El niño comió 1/2 pastel…",
    "it": "«Perché?», chiese il dott. Rossi. Così è: 3,50 € — un po’ caro.",
    "en": "“It’s 5–7 °C,” she said — and ½ of it… cost £1,234.50 × 2! Is e-mail naïve?! (Yes...)",
    "emoji": "We are a family 👩\u200d👩\u200d👧 ❤️ 👍🏽 1️⃣.",
    "a flag": "For 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f!",
    "fa": "می\u200cخواهم کتاب\u200cها را بخوانم.",
    "hi": "क्\u200dष और क्\u200cष अलग हैं।",
    "paragraphs": "Chapter One\n\nIt was late. Nobody came.\n\n1. Open it.\n\n“Why?” she asked.",
}
"""Texts that every step for every model leaves as they are."""

FRAGMENTS = st.sampled_from(
    [
        *(
            "one",
            "Two ",
            "drei, ",
            "It's ",
            "repro-",
            "Title",
            "42. ",
            "1. ",
            "- ",
            "• ",
            "— ",
            "Name: ",
            "和",
            "カ",
            "한",
        ),
        *("\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u2029", "\u200b", "\u00ad", "\ufeff", "\u200d"),
        *(
            "...",
            "====",
            "!",
            "。",
            "”",
            "👩",
            "\ufe0f",
            "e\u0301",
            "می",
            "\u200c",
            "ﾠ",
            "\x00",
            "__",
            "* * *",
            "(",
            "5 ",
        ),
    ]
)
TEXTS = st.lists(FRAGMENTS | st.text(st.characters(exclude_characters="\x1b"), max_size=3), max_size=40).map("".join)
"""Without the escape character: terminal colours have letters and digits that nobody says."""

_SAID = regex.compile(r"[[\p{L}\p{N}]--\p{Default_Ignorable_Code_Point}]", regex.V1)


def said(text: str) -> str:
    """The letters and digits of a text."""
    return "".join(_SAID.findall(text))
