r"""Texts as people and chat models write them, each beside the same text as a person would write it out in words.

The words were chosen without a look at what the server makes of the text: what somebody says who reads it aloud.
"""

from __future__ import annotations

from typing import NamedTuple


class Pair(NamedTuple):
    """A text in two forms.

    Attributes:
        kind: what is difficult about it.
        written: as it is sent.
        by_hand: as it is said, in letters and plain punctuation.
    """

    kind: str
    written: str
    by_hand: str


PAIRS = (
    Pair(
        "curly quotes",
        "No, it wasn’t. We’re late, and they don’t wait.",
        "No, it wasn't. We're late, and they don't wait.",
    ),
    Pair(
        "curly quotes",
        "“Stop,” she said. “That’s my brother’s book.”",
        '"Stop," she said. "That\'s my brother\'s book."',
    ),
    Pair(
        "curly quotes",
        "The teacher wrote ‘should not’ on the board, and „never“ below it.",
        "The teacher wrote 'should not' on the board, and 'never' below it.",
    ),
    Pair(
        "dashes",
        "He came home—late as always—and went straight to bed.",
        "He came home, late as always, and went straight to bed.",
    ),
    Pair("dashes", "It was too bad… to wait. But why – why now?", "It was too bad, to wait. But why, why now?"),
    Pair(
        "dashes",
        "The war of 1939–1945 is in chapters 5–7 -- read them first.",
        "The war of nineteen thirty-nine to nineteen forty-five is in chapters five to seven, read them first.",
    ),
    Pair(
        "headings",
        "# Welcome\n\nThis guide helps you to get started.\n\n## What you need\n\nA computer and a little time.",
        "Welcome. This guide helps you to get started. What you need. A computer and a little time.",
    ),
    Pair(
        "headings",
        "Chapter One\n\nThe Storm\n\nIt rained all night, and nobody slept.",
        "Chapter one. The storm. It rained all night, and nobody slept.",
    ),
    Pair(
        "headings",
        "Our Plan\n========\n\nWe open the shop in spring.\n\nThe Cost\n--------\n\nNobody knows yet.",
        "Our plan. We open the shop in spring. The cost. Nobody knows yet.",
    ),
    Pair(
        "lists",
        "You need:\n- two eggs\n- some milk\n- a cup of sugar\n",
        "You need: two eggs, some milk, a cup of sugar.",
    ),
    Pair(
        "lists",
        "1. Open the window.\n2. Close the door.\n3. Turn off the light.",
        "One. Open the window. Two. Close the door. Three. Turn off the light.",
    ),
    Pair(
        "lists",
        "To do today:\n• Call the doctor\n• Water the plants\n• Buy bread and butter",
        "To do today: Call the doctor. Water the plants. Buy bread and butter.",
    ),
    Pair(
        "lists",
        "* Fruit\n  * apples\n  * pears\n* Drinks\n  * water\n  * tea",
        "Fruit: apples, pears. Drinks: water, tea.",
    ),
    Pair(
        "chat answers",
        "This is **very** important, and _not_ easy.",
        "This is very important, and not easy.",
    ),
    Pair(
        "chat answers",
        "Great question! Here are **three reasons** to walk every day:\n\n"
        "1. **Health** – your heart gets stronger.\n2. **Mood** – you feel better.\n3. **Cost** – it is free.\n\n"
        "Let me know if you’d like more details! 😊",
        "Great question! Here are three reasons to walk every day. One. Health, your heart gets stronger. Two. Mood, "
        "you feel better. Three. Cost, it is free. Let me know if you'd like more details!",
    ),
    Pair(
        "chat answers",
        "### Short answer\n\nYes, you can. Just run `make` in the folder and wait.\n\n> **Note:** It may take a while.",
        "Short answer. Yes, you can. Just run make in the folder and wait. Note: It may take a while.",
    ),
    Pair(
        "chat answers",
        "| City | Weather |\n|---|---|\n| London | rain |\n| Rome | sun |\n\nSo go to **Rome**.",
        "City, weather. London, rain. Rome, sun. So go to Rome.",
    ),
    Pair(
        "chat answers",
        "You can read more in [the manual](https://docs.example.org/en/latest/index.html#start), which is ~~not~~ "
        "free.[1]",
        "You can read more in the manual, which is not free.",
    ),
    Pair(
        "wrapped mails",
        "Hello Anna,\n\nthank you for your letter. I was glad to hear that you and\nyour family are well. "
        "We will come to see you in the\nsummer, if the weather is good.\n\nBest wishes,\nPeter",
        "Hello Anna, thank you for your letter. I was glad to hear that you and your family are well. "
        "We will come to see you in the summer, if the weather is good. Best wishes, Peter.",
    ),
    Pair(
        "wrapped mails",
        "The new machine can repro-\nduce the sound of every\ninstrument that we have in\nthe town of\nLondon.",
        "The new machine can reproduce the sound of every instrument that we have in the town of London.",
    ),
    Pair(
        "wrapped mails",
        "> Can you come on Friday?\n\nYes, I can. Please wait for me\r\nat the station.\r\n\r\n-- \r\nMary",
        "Can you come on Friday? Yes, I can. Please wait for me at the station. Mary.",
    ),
    Pair(
        "prices",
        "The ticket costs $12.50, or $40 for four.",
        "The ticket costs twelve dollars and fifty cents, or forty dollars for four.",
    ),
    Pair(
        "prices",
        "They sold the company for $5.3 billion, not for €200k.",
        "They sold the company for five point three billion dollars, not for two hundred thousand euros.",
    ),
    Pair(
        "prices",
        "A good bike is £1,200 today; the lock is 15 € more.",
        "A good bike is twelve hundred pounds today; the lock is fifteen euros more.",
    ),
    Pair(
        "prices",
        "Save 20% now: coffee at $0.99 and tea at 50¢.",
        "Save twenty percent now: coffee at ninety-nine cents and tea at fifty cents.",
    ),
    Pair(
        "dates",
        "The meeting is on 2025-03-01, not on March 3rd.",
        "The meeting is on March first, twenty twenty-five, not on March third.",
    ),
    Pair(
        "dates",
        "She was born on July 4, 1976, and left school in the 1990s.",
        "She was born on July fourth, nineteen seventy-six, and left school in the nineteen nineties.",
    ),
    Pair(
        "dates",
        "Please answer by 12/24/2024 or come on Mon, Jan. 6.",
        "Please answer by December twenty-fourth, twenty twenty-four or come on Monday, January sixth.",
    ),
    Pair(
        "dates",
        "From 21 May 2019 until the summer of 2021 the house was empty.",
        "From May twenty-first, twenty nineteen until the summer of twenty twenty-one the house was empty.",
    ),
    Pair(
        "times",
        "The train leaves at 7:45 and arrives at 10:05.",
        "The train leaves at seven forty-five and arrives at ten oh five.",
    ),
    Pair(
        "times",
        "We are open from 9am to 5:30 PM, Mon-Fri.",
        "We are open from nine a.m. to five thirty p.m., Monday to Friday.",
    ),
    Pair(
        "times",
        "Dinner is at 8:00 p.m. Be there 15 min early.",
        "Dinner is at eight p.m. Be there fifteen minutes early.",
    ),
    Pair(
        "phone numbers",
        "Please call 555-0134 after lunch.",
        "Please call five five five, zero one three four after lunch.",
    ),
    Pair(
        "phone numbers",
        "My number is (212) 555-0187, and hers is +1 415 555 0123.",
        "My number is two one two, five five five, zero one eight seven, and hers is plus one, four one five, "
        "five five five, zero one two three.",
    ),
    Pair(
        "units",
        "It is -5°C outside, and 72 °F in here.",
        "It is minus five degrees Celsius outside, and seventy-two degrees Fahrenheit in here.",
    ),
    Pair(
        "units",
        "The box is 30 cm long and weighs 2.5 kg.",
        "The box is thirty centimeters long and weighs two point five kilograms.",
    ),
    Pair(
        "units",
        "He drove 120 km/h, which is about 75 mph.",
        "He drove one hundred and twenty kilometers per hour, which is about seventy-five miles per hour.",
    ),
    Pair(
        "units",
        "Add ½ cup of water and 1/4 cup of oil.",
        "Add half a cup of water and a quarter cup of oil.",
    ),
    Pair(
        "numbers",
        "About 1,250 people came, 3 times as many as in the 2nd year, and the shop is open 24/7.",
        "About one thousand two hundred and fifty people came, three times as many as in the second year, "
        "and the shop is open twenty-four seven.",
    ),
    Pair(
        "numbers",
        "If x = 5, then 2 × 5 + 1 is #11.",
        "If x equals five, then two times five plus one is number eleven.",
    ),
    Pair("numbers", "World War II began under George VI.", "World War Two began under George the Sixth."),
    Pair("URLs", "See https://www.example.com/ for more.", "See example dot com for more."),
    Pair(
        "URLs",
        "Write to anna@example.org or look at www.example.org/help.",
        "Write to anna at example dot org or look at example dot org slash help.",
    ),
    Pair(
        "URLs",
        "The file is in /usr/local/bin and is called notes.txt.",
        "The file is in slash user slash local slash bin and is called notes dot text.",
    ),
    Pair(
        "versions",
        "Please install version 1.2.3 before you open snake_case or C++.",
        "Please install version one point two point three before you open snake case or C plus plus.",
    ),
    Pair("emoji", "Great job! 🎉🎉🎉 See you tomorrow 👋", "Great job! See you tomorrow."),
    Pair("emoji", "I love it ❤️, thank you so much 🙏🏽!", "I love it, thank you so much!"),
    Pair(
        "emoji",
        "✅ The light works. ❌ The heater does not. ⚠️ Be careful!",
        "The light works. The heater does not. Be careful!",
    ),
    Pair("capitals", "THE END IS NEAR.", "The end is near."),
    Pair("capitals", "WARNING! DO NOT OPEN THE DOOR.", "Warning! Do not open the door."),
    Pair(
        "capitals",
        "The USA and NASA bought new PCs for the FBI.",
        "The U S A and Nasa bought new P Cs for the F B I.",
    ),
    Pair(
        "abbreviations",
        "Dr. Smith and Mrs. Brown live on St. John St., e.g. in May.",
        "Doctor Smith and Missus Brown live on Saint John Street, for example in May.",
    ),
    Pair(
        "abbreviations",
        "Bring bread, milk, etc. and see p. 12, fig. 3.",
        "Bring bread, milk, etcetera and see page twelve, figure three.",
    ),
    Pair(
        "HTML",
        "<p>Tom &amp; Jerry&#39;s house is <b>old</b>.<br>It has a red door.</p>",
        "Tom and Jerry's house is old. It has a red door.",
    ),
    Pair(
        "HTML",
        "<h2>News</h2><ul><li>The bridge is open.</li><li>The market is closed.</li></ul>",
        "News. The bridge is open. The market is closed.",
    ),
    Pair("accents", "José ate in the café with François.", "Jose ate in the cafe with Francois."),
    Pair(
        "accents",
        "Her naïve fiancé from Málaga met Łukasz in Zürich.",
        "Her naive fiance from Malaga met Lukasz in Zurich.",
    ),
    Pair(
        "blanks",
        "We have\u00a0five\u00a0apples,\tand they\u200b are good\u00adness.",
        "We have five apples, and they are goodness.",
    ),
    Pair(
        "blanks",
        "\ufeffHello, my name is\u202fJohn.      I live\u00a0\u00a0here.\n\n\n\n\nBye.",
        "Hello, my name is John. I live here. Bye.",
    ),
    Pair("runs", "Wait... what? So,,,, here we are!!!!!!", "Wait, what? So, here we are!"),
    Pair(
        "runs",
        "Part one.\n\n* * *\n\nPart two.\n----------------\nName: ______ is here.",
        "Part one. Part two. Name: is here.",
    ),
    Pair(
        "stage marks",
        "*waves* Hello [Misaki](/mɪsˈɑki/), nice to meet you & your sister @ home.",
        "Waves. Hello Misaki, nice to meet you and your sister at home.",
    ),
)
"""The 62 pairs of texts."""
