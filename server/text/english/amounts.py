"""Writes money, percentages, temperatures, units, fractions and powers as words."""

from __future__ import annotations

import re
import unicodedata

from server.text.numerals import words

NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_MAGNITUDE = r"(?: ?(?P<size>thousand|million|billion|trillion|bn|[KkMB](?![\w'])))?"
_SIZES = {"k": "thousand", "K": "thousand", "M": "million", "B": "billion", "bn": "billion"}
_CURRENCIES = {
    "$": ("dollar", "cent"),
    "\u20ac": ("euro", "cent"),
    "\u00a3": ("pound", "penny"),
    "\u00a5": ("yen", ""),
    "\u20b9": ("rupee", "paisa"),
    "USD": ("dollar", "cent"),
    "EUR": ("euro", "cent"),
    "GBP": ("pound", "penny"),
    "US$": ("U S dollar", "cent"),
}
_PLURALS = {"penny": "pence", "yen": "yen", "foot": "feet", "inch": "inches", "paisa": "paise"}
_SYMBOL = r"(?:US\$|[$\u20ac\u00a3\u00a5\u20b9]|(?:USD|EUR|GBP) )"
_MONEY = re.compile(rf"(?P<sign>(?<!\w)-)?(?P<symbol>{_SYMBOL}) ?(?P<number>{NUMBER}){_MAGNITUDE}(?!\d)")
_MONEY_BEHIND = re.compile(
    rf"(?<![\w.,])(?P<number>{NUMBER}) ?(?P<symbol>[\u20ac\u00a3\u00a5]|USD\b|EUR\b|GBP\b)(?P<size>)(?P<sign>)"
)
_MONEY_RANGE = re.compile(rf"(?<!\w)(?P<symbol>[$\u20ac\u00a3])(?P<low>{NUMBER}) ?- ?(?:(?P=symbol))?(?={NUMBER})")
_PER_TIME = re.compile(
    r"\b(?P<money>dollars?|cents?|euros?|pounds?|penny|pence|yen|rupees?)/(?P<per>month|mo|week|wk|day|night|year|yr|hour|hr|h|person|minute|min|second|sec|kg|lb|mile|liter)\b"
)
_SHORT_PER = {
    "mo": "month", "wk": "week", "yr": "year", "hr": "hour", "h": "hour", "min": "minute", "sec": "second",
    "kg": "kilogram", "lb": "pound",
}  # fmt: skip
_FEET_AND_INCHES = re.compile(
    r"(?<![\w.,'])(?P<feet>\d{1,2})(?:' ?(?P<inches>\d{1,2})(?:\"|'')| ?ft\.? (?P<more>\d{1,2}) ?in\b)"
)
_CENTS = re.compile(rf"(?<![\w.,])(?P<number>{NUMBER}) ?\u00a2")

_VULGAR = re.compile(r"(?:(?<!\d)(?P<whole>\d{1,9}) ?)?(?P<part>[\u00bc-\u00be\u2150-\u215e])")
_FRACTION = re.compile(
    r"(?<![\w./,-])(?:(?P<whole>\d{1,4}) )?(?P<top>\d{1,2})/(?P<bottom>[2-9]|1[0-6]|20|32|64|100)(?![\w/]|[.,]\d)"
)
_RATING = re.compile(r"(?<![\w./,-])(?<!\d )(?P<got>\d{1,3})/(?P<best>[2-9]|1[0-6]|20|32|64|100)(?![\w/]|[.,]\d| of\b)")
_HALF_OF = re.compile(
    r"\bone half (?=(?:(?P<vowel>ounce|inch|hour)|cup|teaspoon|tablespoon|pint|gallon|pound|mile|meter|minute|day|"
    r"year|dozen|liter|kilogram|kilometer)\b)"
)
_ALL_DAY = re.compile(r"(?<![\d/])24/7(?![\d/])")
_POWERS = {"\u00b2": "squared", "\u00b3": "cubed"}
_POWER = re.compile(r"(?<=[\w)])[\u00b2\u00b3]")

_UNITS = {
    "km": "kilometer",
    "cm": "centimeter",
    "mm": "millimeter",
    "m": "meter",
    "mi": "mile",
    "ft": "foot",
    "in": "inch",
    "yd": "yard",
    "kg": "kilogram",
    "g": "gram",
    "mg": "milligram",
    "lb": "pound",
    "lbs": "pound",
    "oz": "ounce",
    "l": "liter",
    "L": "liter",
    "ml": "milliliter",
    "mL": "milliliter",
    "s": "second",
    "sec": "second",
    "ms": "millisecond",
    "min": "minute",
    "mins": "minute",
    "h": "hour",
    "hr": "hour",
    "hrs": "hour",
    "KB": "kilobyte",
    "MB": "megabyte",
    "GB": "gigabyte",
    "TB": "terabyte",
    "kB": "kilobyte",
    "Hz": "hertz",
    "kHz": "kilohertz",
    "MHz": "megahertz",
    "GHz": "gigahertz",
    "W": "watt",
    "kW": "kilowatt",
    "kWh": "kilowatt hour",
    "V": "volt",
    "mAh": "milliamp hour",
    "dB": "decibel",
    "px": "pixel",
    "mph": "mile per hour",
    "kph": "kilometer per hour",
    "fps": "frame per second",
    "rpm": "revolution per minute",
    "kbps": "kilobit per second",
    "Mbps": "megabit per second",
    "Gbps": "gigabit per second",
    "cal": "calorie",
    "kcal": "kilocalorie",
    "ha": "hectare",
}
_PER = {
    "h": "hour",
    "hr": "hour",
    "s": "second",
    "sec": "second",
    "min": "minute",
    "day": "day",
    "kg": "kilogram",
    "l": "liter",
    "L": "liter",
    "m\u00b2": "square meter",
    "m\u00b3": "cubic meter",
    "km\u00b2": "square kilometer",
}
_UNIT = re.compile(
    rf"(?<![\w.,])(?P<number>{NUMBER})(?P<gap>[ -]?)(?P<unit>{'|'.join(sorted(_UNITS, key=len, reverse=True))})"
    rf"(?P<power>[\u00b2\u00b3]?)(?:/(?P<per>{'|'.join(sorted(_PER, key=len, reverse=True))}))?"
    r"(?![\w\u00b2\u00b3]|/\w|'\w)(?:\.(?=[,;:)]| [a-z0-9]))?"
)
_DEGREES = re.compile(rf"(?:(?<![\d.,])(?P<number>{NUMBER}) ?)?\u00b0(?: ?(?P<scale>[CFK])\b)?")
_SCALES = {"C": " Celsius", "F": " Fahrenheit", "K": " Kelvin", None: ""}
_AMOUNT_RANGE = re.compile(r"(?<=\d)(?P<amount>%|\u00b0[CF]?) ?- ?(?=\d)")
_PERCENT = re.compile(rf"(?<![\d.,])(?P<number>{NUMBER}) ?%")


def spoken_amounts(text: str) -> str:
    """Money, percentages, temperatures, units, fractions and powers with words for their signs; numbers may stay."""
    text = _MONEY_RANGE.sub(r"\g<low> to \g<symbol>", text)
    text = _MONEY_BEHIND.sub(_money, _MONEY.sub(_money, text))
    text = _FEET_AND_INCHES.sub(lambda it: f"{it['feet']} foot {it['inches'] or it['more']}", text)
    text = _AMOUNT_RANGE.sub(r"\g<amount> to ", text)
    text = _CENTS.sub(lambda it: f"{it['number']} {_many('cent', it['number'])}", text)
    text = _PER_TIME.sub(lambda it: f"{it['money']} per {_SHORT_PER.get(it['per'], it['per'])}", text)
    text = _ALL_DAY.sub("twenty-four seven", text)
    text = _VULGAR.sub(_vulgar, text)
    text = _FRACTION.sub(lambda it: _fraction(it["whole"], it["top"], it["bottom"]), _RATING.sub(_rating, text))
    text = _HALF_OF.sub(lambda it: "half an " if it["vowel"] else "half a ", text)
    text = _DEGREES.sub(_degrees, text)
    text = _UNIT.sub(_unit, text)
    text = _POWER.sub(lambda it: f" {_POWERS[it[0]]}", text)
    return _PERCENT.sub(r"\g<number> percent", text)


def _many(unit: str, number: str) -> str:
    """The unit's plural, unless there is one: `mile per hour` becomes `miles per hour`."""
    if number == "1":
        return unit
    first, space, rest = unit.partition(" per ")
    plural = first if first.endswith("hertz") else _PLURALS.get(first, f"{first}s")
    return plural + space + rest


def _money(money: re.Match[str]) -> str:
    one, hundredth = _CURRENCIES[money["symbol"].strip()]
    number, size = money["number"].replace(",", ""), money["size"]
    sign = "minus " if money["sign"] else ""
    if size:
        return f"{sign}{number} {_SIZES.get(size, size)} {_many(one, '2')}"
    whole, _, part = number.partition(".")
    if len(part) != 2 or not hundredth:
        return f"{sign}{number} {_many(one, number)}"
    parts = [f"{whole or 0} {_many(one, whole)}"] if int(whole or 0) or not int(part) else []
    parts += [f"{int(part)} {_many(hundredth, str(int(part)))}"] if int(part) else []
    return sign + " and ".join(parts)


def _rating(rating: re.Match[str]) -> str:
    """A rating such as `5/5` or `7/10`; anything else stays, as a fraction."""
    got, best = int(rating["got"]), int(rating["best"])
    return f"{got} out of {best}" if got >= best or (best in (10, 100) and got > 1) else rating[0]


def _vulgar(fraction: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", fraction["part"]).partition("\u2044")
    return _fraction(fraction["whole"], top, bottom)


def _fraction(whole: str | None, top: str, bottom: str) -> str:
    part = {"2": "half", "4": "quarter"}.get(bottom) or words(bottom, kind="ordinal")
    if top != "1":
        part = "halves" if part == "half" else f"{part}s"
    if whole:
        return f"{words(whole)} and {'a' if top == '1' else words(top)} {part}"
    return f"{words(top)} {part}"


def _degrees(degrees: re.Match[str]) -> str:
    number, scale = degrees["number"], _SCALES[degrees["scale"]]
    return f"{number} {_many('degree', number)}{scale}" if number else f" degrees{scale}"


def _unit(unit: re.Match[str]) -> str:
    name, power, per = _UNITS[unit["unit"]], unit["power"], unit["per"]
    if power:
        name = f"{'square' if power == chr(0xB2) else 'cubic'} {name}"
    if unit["unit"] == "in" and (unit["gap"] != "" or per):
        return unit[0]  # 5 in the morning
    said = name if unit["gap"] == "-" else _many(name, unit["number"])
    return f"{unit['number']} {said}" + (f" per {_PER[per]}" if per else "")
