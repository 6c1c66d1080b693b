"""Abbreviations whose full stop ends no sentence and that `sentencex` does not know, by ISO 639-1 code.

They are those that people write in the languages that the models speak. A name that is spelt the same, such as `Max`,
is in none: it may well be a sentence's last word.
"""

from __future__ import annotations

from server.text.word_set import word_set

_UNITS = "cm ft GB Hz kB kg kHz km kW kWh lb lbs MB mg ml mm oz"

BEFORE = {
    "en": word_set(
        "approx Approx attn avg ch Ch ed eds eq Eq eqs est Est excl fig Fig figs Figs govt incl intl max mgr min misc "
        "resp Sec sect tel Tel vol Vol vols Vols"
    ),
    "de": word_set(
        "Abb Abs allg Bd Bde bspw ehem entspr exkl geb gegr gem inkl Inkl insb Kap lat max min mind Tel zzgl"
    ),
    "fr": word_set("approx bd boul Dr Dre excl fig incl max min Mlle Mme nos St Ste Tél"),
    "es": word_set("aprox Aprox fig incl máx mín vol"),
    "it": word_set("appross circ compr escl incl max min n num pag Pag pagg tav Tel vol"),
    "pt": word_set("aprox Aprox Av cap Cap caps excl fig incl máx mín n núm pág Pág págs tel Tel vol Vol vols"),
    "ru": word_set("макс напр рис Рис т.е табл"),
}
"""What stands before something that it belongs to. It ends no sentence, whatever follows: `It is approx. Nothing else.`
is taken for one sentence, which only makes it longer."""

BEHIND = {
    "en": word_set(f"{_UNITS} a.m gal hr hrs mins mo mos p.m Ph.D pt qt sec secs tbsp tsp wk wks yr yrs"),
    "de": word_set(f"{_UNITS} gest Jh Mio Mrd Std Stk Tsd"),
    "fr": word_set(f"{_UNITS} ann hab no"),
    "es": word_set(_UNITS),
    "it": word_set(_UNITS),
    "pt": word_set(f"{_UNITS} etc"),
    "ru": word_set("др кг км коп мин млн млрд н.э руб см тыс чел"),
}
"""What stands behind a number or a list, or is another word too: it ends a sentence unless what follows begins with a
small letter or a digit."""
