"""Written forms of English become words, and numbers those of other languages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text.written import written_out

NUMBERS = [
    ("It is -5 outside, not 5.", "It is minus five outside, not five."),
    ("3.14, .5 and 0.05", "three point one four, zero point five and zero point zero five"),
    (
        "1,234,567 of 12345",
        "one million two hundred and thirty-four thousand five hundred and sixty-seven of "
        "twelve thousand three hundred and forty-five",
    ),
    ("the 1st, 2nd, 3rd, 21st and 101st", "the first, second, third, twenty-first and one hundred and first"),
    ("5-7 days, 10-15%", "five to seven days, ten to fifteen percent"),
    ("agent 007", "agent zero zero seven"),
    ("#2, No. 5", "number two, number five"),
    ("World War II, Henry VIII, Chapter IV and I", "World War two, Henry the eighth, Chapter four and I"),
    ("MP3, 4K, H2O", "M P three, four K, H two O"),
    ("5 - 3 = 2, x + 2, 3*4 < 20", "five minus three equals two, x plus two, three times four is less than twenty"),
    ("3 \u00d7 4 \u00b1 1", "three times four plus or minus one"),
    ("C++ and C#", "C plus plus and C sharp"),
    ("a 3:1 ratio", "a three to one ratio"),
    (
        "x >= 5, x <= 5, >5, <5, >= 5, <= 5",
        "x is at least five, x is at most five, more than five, less than five, at least five, at most five",
    ),
    ("x^2, A -> B", "x to the power of two, A to B"),
    ("24/7", "twenty-four seven"),
    ("Chapter One. World War Two. One, Two", "Chapter one. World War two. One, two"),
    ("Open it. 2. Close it! 3 of 4", "Open it. Two. Close it! Three of four"),
    ("1/2, 3/4, 2 1/3, \u00bd, 5\u00bd", "one half, three quarters, two and a third, one half, five and a half"),
    ("9" * 20, " ".join(["nine"] * 20)),
]
DATES = [
    ("2025-03-01", "March first, twenty twenty-five"),
    ("On March 3, 2024, we", "On March third, twenty twenty-four, we"),
    ("3 March 2024", "March third, twenty twenty-four"),
    ("Mar. 3 and May 5th", "March third and May fifth"),
    ("3/4/2024 and 25/12/2024", "March fourth, twenty twenty-four and December twenty-fifth, twenty twenty-four"),
    ("July 15 to 17", "July fifteenth to seventeenth"),
    ("in 1905, 2005 and 1900", "in nineteen oh five, two thousand and five and nineteen hundred"),
    ("the 1990s", "the nineteen nineties"),
    (
        "the 90s, the late 80s, '60s, for 90s.",
        "the nineties, the late eighties, sixties, for ninety seconds.",
    ),
    ("9am-5pm, 10 AM - 12 PM", "nine a.m. to five p.m., ten a.m. to twelve p.m."),
    ("00:30 or 0:05", "zero thirty or zero oh five"),
    ("1500 miles, in 1500", "one thousand five hundred miles, in fifteen hundred"),
    ("1939 to 1945", "nineteen thirty-nine to nineteen forty-five"),
    ("At 10:30, 10:05 and 10:00", "At ten thirty, ten oh five and ten o'clock"),
    ("17:30 or 5 p.m. or 5pm or 10:30 am", "seventeen thirty or five p.m. or five p.m. or ten thirty a.m."),
]
AMOUNTS = [
    ("$5.3 billion", "five point three billion dollars"),
    ("\u20ac1,234.50", "one thousand two hundred and thirty-four euros and fifty cents"),
    (
        "$1, $1.00, $0.99, -$5, $20K",
        "one dollar, one dollar, ninety-nine cents, minus five dollars, twenty thousand dollars",
    ),
    ("\u00a35.01 and 5 \u20ac", "five pounds and one penny and five euros"),
    ("20\u00a2 of 50%", "twenty cents of fifty percent"),
    ("-5\u00b0C, 1 \u00b0F, 20\u00b0 or", "minus five degrees Celsius, one degree Fahrenheit, twenty degrees or"),
    (
        "5 km, 1 kg, 6 ft, 80 km/h, 60 mph",
        "five kilometers, one kilogram, six feet, eighty kilometers per hour, sixty miles per hour",
    ),
    (
        "16GB, 2.5 GHz, 3 m\u00b2, x\u00b2",
        "sixteen gigabytes, two point five gigahertz, three square meters, x squared",
    ),
    ("\u00bd cup, 1/2 hour, 1/2 of it", "half a cup, half an hour, one half of it"),
    ("5/5, 7/10, 1/10 of it", "five out of five, seven out of ten, one tenth of it"),
    ("See $$x = 5$$ in $HOME", "See x equals five in H O M E"),
    ("5 in the morning", "five in the morning"),
    ("$5-10, $5-$10 and $3 - 4 million", "five to ten dollars, five to ten dollars and three to four million dollars"),
    (
        "$3/month, \u20ac5.99/kg, 50\u00a2/min",
        "three dollars per month, five euros and ninety-nine cents per kilogram, fifty cents per minute",
    ),
    ("5%-10%, 5\u00b0-7\u00b0C", "five percent to ten percent, five degrees to seven degrees Celsius"),
    ("He is 6'2\", she is 5 ft 7 in tall.", "He is six foot two, she is five foot seven tall."),
    ("3 oz., 5 lbs. of it and 45 sec. Then", "three ounces, five pounds of it and forty-five seconds. Then"),
]
NAMES = [
    ("Call 555-0134.", "Call five five five, zero one three four."),
    ("(555) 123-4567", "five five five, one two three, four five six seven"),
    ("+44 20 7946 1958", "plus four four, two zero, seven nine four six, one nine five eight"),
    ("4111 1111 1111 1111", "four one one one, one one one one, one one one one, one one one one"),
    ("1-800-555-0199", "one, eight zero zero, five five five, zero one nine nine"),
    ("555.123.4567", "five five five, one two three, four five six seven"),
    ("x==2.31.0", "x equals two point thirty-one point zero"),
    ("version 1.2.3", "version one point two point three"),
    ("at 10.0.0.1", "at ten dot zero dot zero dot one"),
    ("main.py", "main dot P Y"),
]
CAPITALS = [
    ("The FBI, the USA and NASA.", "The F B I, the U S A and nasa."),
    ("GPUs and the CEO's PC", "G P Us and the C E O's P C"),
    ("THE END IS NEAR.", "The end is near."),
    ("WARNING! DO NOT OPEN THE DOOR.", "Warning! Do not open the door."),
    ("I'M NOT HERE. IT'S THE FBI.", "I'm not here. It's the F B I."),
    ("This is VERY IMPORTANT news, but HTTPS is not.", "This is V E R Y important news, but H T T P S is not."),
    ("U.S. Army. In the U.S. He", "U S Army. In the U S. He"),
    ("(the U.S., the U.K.) and", "(the U S, the U K) and"),
    ("I am. A day. OK", "I am. A day. Okay"),
    ("AT&T, R&D", "A T and T, R and D"),
]
ABBREVIATIONS = [
    (
        "Mon-Fri, Sat - Sun, Jan.-Mar., May-Sept",
        "Monday to Friday, Saturday to Sunday, January to March, May to September",
    ),
    ("on Mon, Jan. 6 or next Wed.", "on Monday, January sixth or next Wednesday."),
    ("Tue. and Thurs., Sat & Sun.", "Tuesday and Thursday, Saturday and Sunday."),
    ("Sat 5 and in Feb. He", "Saturday five and in February. He"),
    ("Dr. Smith, Mr Brown and Mrs. Green", "Doctor Smith, Mister Brown and Missus Green"),
    ("on St. John St. in town. On 5th Ave. He", "on Saint John Street in town. On fifth Avenue. He"),
    ("In St. Louis. From St. Ives", "In Saint Louis. From Saint Ives"),
    ("John King Jr., Apple Inc. makes", "John King Junior, Apple Incorporated makes"),
    ("It is no. 5 of us.", "It is no. Five of us."),
    ("See p. 12, Fig. 3, pp. 3-4.", "See page twelve, figure three, pages three to four."),
    ("milk, etc. and tea, etc.", "milk, etcetera and tea, etcetera."),
    ("yes/no, and/or, he/she, w/o it", "yes or no, and or, he or she, without it"),
    ("TCP/IP, a/b/c", "T C P slash I P, a slash b slash c"),
    ("VS Code vs IT", "V S Code versus I T"),
    ("Dogs vs. cats, e.g. mine, i.e. approx. all", "Dogs versus cats, for example mine, that is approximately all"),
]
NO_ABBREVIATIONS = [
    "Jan sat in the sun.",
    "Sun and rain.",
    "She sat. Mar it not.",
    "Wed them.",
    "Mon-key",
    "Sat-nav",
    "The sea. Stop.",
    "a letter from Jan",
    "Is it no? No.",
]


@pytest.mark.parametrize(("text", "said"), [*NUMBERS, *DATES, *AMOUNTS, *NAMES, *CAPITALS, *ABBREVIATIONS])
def test_written_forms_of_english_become_words(text: str, said: str) -> None:
    assert written_out(text, "en") == said


@pytest.mark.parametrize(("_", "said"), [*NUMBERS, *DATES, *AMOUNTS, *NAMES, *ABBREVIATIONS])
def test_what_is_written_out_stays(_: str, said: str) -> None:
    assert written_out(said, "en") == said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No numbers here.",
        'She said, "I\'m here"; he left: why? (So.)',
        "A well-known fact",
        "I, Anna and Bob.",
        *NO_ABBREVIATIONS,
    ],
)
def test_plain_english_stays(text: str) -> None:
    assert written_out(text, "en") == text


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("de", "21 oder 3,5 oder 1.234", "einundzwanzig oder drei Komma fünf oder eintausendzweihundertvierunddreißig"),
        ("fr", "21 et -5", "vingt et un et moins cinq"),
        ("es", "21", "veintiuno"),
        ("it", "21", "ventuno"),
        ("pt", "21", "vinte e um"),
        ("ru", "21", "двадцать один"),
        ("ja", "21", "二十一"),
        ("ko", "21", "이십일"),
        ("zh", "21", "21"),
        (None, "21", "21"),
    ],
)
def test_numbers_of_other_languages(language: str | None, text: str, said: str) -> None:
    assert written_out(text, language) == said


@given(st.text(st.sampled_from("0123456789 .,:/-$%abcIVX\u00b0\u20ac#+()'\n")))
def test_no_digit_is_left_and_no_number_is_lost(text: str) -> None:
    said = written_out(text, "en")
    assert not re.search(r"[0-9]", said)
    assert bool(re.search(r"\w", text)) <= bool(re.search(r"\w", said))


@given(st.text(), st.sampled_from(["en", "de", "ja", "zh", None]))
def test_any_text_can_be_written_out(text: str, language: str | None) -> None:
    written_out(text, language)


PATHOLOGICAL = [
    "1",
    "0",
    "1,",
    "1.",
    "1-",
    "1:",
    "1/",
    "1 ",
    "-",
    "$",
    "$1",
    "+1",
    "+1 ",
    "(1",
    "\u00b0",
    "1\u00b0",
    "\u00bd",
    "1\u00bd",
    "A",
    "A.",
    "A-",
    "AA-",
    "AA ",
    "I'",
    "a1",
    "#1",
    "x=",
    "% ",
    "12:30",
    "1st",
    "May ",
    "May 1, ",
    "\u00b2",
    "5 km/",
    "1111-",
    "0 1",
    "Henry I",
    "Sat and ",
    "Mon-",
    "e.g. ",
    "9am-",
    "$1-",
    "1'1",
]


@pytest.mark.parametrize("piece", PATHOLOGICAL)
def test_any_long_text_is_linear_work(piece: str) -> None:
    """As long as a request may be by default; a million characters of numbers take some ten seconds."""
    text = (piece * (50_000 // len(piece) + 1))[:50_000] + "-b"
    assert len(written_out(text, "en")) <= 30 * len(text)


@pytest.mark.parametrize("piece", ["a", "a ", "It is 5 km. ", "\n", " ", "AA "])
def test_a_very_long_text_is_linear_work(piece: str) -> None:
    text = (piece * (200_000 // len(piece) + 1))[:200_000]
    assert len(written_out(text, "en")) <= 30 * len(text)
