"""What is inside marks is said, the marks are not; a text without them stays exactly as it is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text.markup import TextFormat, convert
from server.text.markup_marks import plainly_markdown

MARKDOWN = [
    ("This is **very** important, and _not_ easy.", "This is very important, and not easy."),
    ("***Both*** and __two words__.", "Both and two words."),
    ("# Welcome\nHello.", "Welcome\n\nHello."),
    ("Intro\n\n## 1. Setup ##\n\nText", "Intro\n\n1. Setup\n\nText"),
    ("Title\n=====\nText\n\nPart\n---\nMore", "Title\n\nText\n\nPart\n\nMore"),
    ("Read [the manual](https://example.org/a_(b)) now.", "Read the manual now."),
    ("[x][1] text\n\n[1]: https://example.org 'Title'", "x text"),
    ("See <https://example.org/a> **now**.", "See https://example.org/a now."),
    ("![a red car](car.png) is here.", "a red car is here."),
    ("Type `ls -la` now.", "Type ls -la now."),
    ("Run:\n```python\nprint(1)\n\nprint(2)\n```\nDone.", "Run:\n\nprint(1)\n\nprint(2)\n\nDone."),
    ("- item:\n  ```\n  code\n  ```\n- two", "item:\n\ncode\n\ntwo"),
    ("```\nnever closed **x**", "never closed **x**"),
    ("~~~\na\n```\nb\n~~~\nc", "a\n\n```\n\nb\n\nc"),
    ("It is ~~not~~ so.", "It is not so."),
    ("> To be or not to be.\n\nThat is the question.", "To be or not to be.\n\nThat is the question."),
    ("Part one.\n\n* * *\n\nPart two.", "Part one.\n\nPart two."),
    ("Part one.\n\n___\n\nPart two.", "Part one.\n\nPart two."),
    ("- milk\n- bread\n- eggs", "milk\n\nbread\n\neggs"),
    ("To buy:\n* milk\n* bread", "To buy:\n\nmilk\n\nbread"),
    ("* milk\n  * skimmed\n  * whole\n* bread", "milk\n\nskimmed\n\nwhole\n\nbread"),
    ("- [ ] open\n- [x] done", "open\n\ndone"),
    ("1. First\n2. Second\n\n5. Fifth", "1. First\n\n2. Second\n\n5. Fifth"),
    ("1. a\n1. b\n1. c", "1. a\n\n2. b\n\n3. c"),
    ("1. **a**\n\n   more of a\n2. b", "1. a\n\nmore of a\n\n2. b"),
    ("1986. A great **year**.", "1986. A great year."),
    ("| Name | Age |\n|------|----:|\n| Ann | 5 |\n| Bob. |  |", "Name, Age\n\nAnn, 5\n\nBob."),
    ("Born in 1950[1] and died.[2][3]", "Born in 1950 and died."),
    ("Said so.[^note]\n\n[^note]: In **1950**.", "Said so.\n\nIn 1950."),
    ("[Misaki](/mɪsˈɑki/) is [here now](/hˈɪɹ nˈW/).", "Misaki is here now."),
    ("It [is](-1) so.", "It is so."),
    ("Tom &amp; **Jerry**<br>Next", "Tom & Jerry\n\nNext"),
    ("**bold**\nwrapped\nlines", "bold wrapped lines"),
    ("**One**.\n\nTwo\nthree.\n\n\nFour.", "One.\n\nTwo three.\n\nFour."),
    ("    an **indented** line\n    of a poem", "an indented line of a poem"),
    ("**注意：**请看**重点**内容", "注意：请看重点内容"),
    ("**Not** 2*3*4, 2**3 or snake_case_name or x_1.", "Not 2*3*4, 2**3 or snake_case_name or x_1."),
    ("[Anna]: hello\n\n**Bob**: hi", "[Anna]: hello\n\nBob: hi"),
    ("# A\r\n\r\ntext\r\nmore", "A\n\ntext more"),
    ("**Note:** a < b && c > d, List<String> <your name>", "Note: a < b && c > d, List<String> <your name>"),
]
ACTIONS = [
    ("*waves*", "waves"),
    ("*She smiles and waves.*", "She smiles and waves."),
    ("*waves* Hello there!", "waves Hello there!"),
    ('"Hi," *he said.*', '"Hi," he said.'),
]
HTML = [
    ("<b>Bonds</b> &amp; loans:<ul><li>One</li><li>Two</li></ul>", "Bonds & loans:\n\nOne\n\nTwo"),
    ("<ol start='3'><li>a<li><p>b</p></ol>", "3. a\n\n4. b"),
    ("Tom &amp; Jerry&#39;s house.<br>Next", "Tom & Jerry's house.\n\nNext"),
    ("one<br/>two<hr>three", "one\n\ntwo\n\nthree"),
    ("5 &lt; 6 &#x26; 7 &gt; 6&nbsp;!", "5 < 6 & 7 > 6 !"),
    ("<h1>Title</h1><p>One\n two.</p><div>Three.</div>", "Title\n\nOne two.\n\nThree."),
    ("<!DOCTYPE html><html><head><title>x</title></head><body>Hi<!-- no --></body></html>", "Hi"),
    ("<script>var a = '<b>';</script>Hi <i>you</i><style>b{}</style>", "Hi you"),
    ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td><p>2<br>3</p></td></tr></table>", "a, b\n\n1, 2 3"),
    ("H<sub>2</sub>O is <s>not</s> <a href='https://example.org'>water</a>", "H2O is not water"),
    ("<img src='a.png' alt='a car'> drives", "a car drives"),
    ("<pre>one\ntwo</pre>three", "one\n\ntwo\n\nthree"),
    ("First.\n\n<b>Second</b>.", "First.\n\nSecond."),
    ("if a <b and c> d &amp; e", "if a <b and c> d & e"),
    ("&lt;b&gt; AT&T; ?a=1&copy=2", "<b> AT&T; ?a=1&copy=2"),
    ("<p>Hello <your name>, vector<int> &</p>", "Hello <your name>, vector<int> &"),
]
SSML = [
    ("<speak>Hello.</speak>", "Hello."),
    (
        '<?xml version="1.0"?><speak version="1.1" xml:lang="en"><p><s>One.</s><s>Two.</s></p><p>Three.</p></speak>',
        "One. Two.\n\nThree.",
    ),
    (
        "<speak>The <sub alias='World Wide Web'>W<b>W</b>W</sub> is <emphasis>big</emphasis>.</speak>",
        "The World Wide Web is big.",
    ),
    ("<speak><phoneme alphabet='ipa' ph='təˈmɑːtoʊ'>tomato</phoneme> <say-as>May 5</say-as></speak>", "tomato May 5"),
    (
        "<speak><prosody rate='slow'>Slow</prosody><break/>and <mstts:express-as>sad</mstts:express-as></speak>",
        "Slow and sad",
    ),
    ("<emphasis>Now</emphasis> go", "Now go"),
]


@pytest.mark.parametrize(("text", "said"), [*MARKDOWN, *ACTIONS])
@pytest.mark.parametrize("text_format", ["auto", "markdown"])
def test_markdown_becomes_plain_text(text: str, said: str, text_format: TextFormat) -> None:
    assert convert(text, text_format) == said


@pytest.mark.parametrize(("text", "said"), [*HTML, *SSML])
@pytest.mark.parametrize("text_format", ["auto", "html"])
def test_html_and_ssml_become_plain_text(text: str, said: str, text_format: TextFormat) -> None:
    assert convert(text, text_format) == said


@pytest.mark.parametrize(("text", "said"), [*MARKDOWN, *ACTIONS, *HTML, *SSML])
def test_plain_text_stays_and_converting_again_changes_nothing(text: str, said: str) -> None:
    assert convert(text, "plain") == text
    if "**x" not in said and "```" not in said and "<b>" not in said:  # code, which is said as it stands
        assert convert(said, "auto") == said


@pytest.mark.parametrize(
    "text",
    [
        "2 * 3 * 4 = 24, and 2*3*4 too.",
        "2**3 and 4**5",
        "a < b and c > d, a<b, 1<2",
        "snake_case, x_1, _private and __init__",
        "# 1 fan\nof the band",
        "A 5* hotel, and a 4* one.\n*terms apply",
        "Rated *** by ** critics",
        "#hashtag and #2",
        "- Hello, she said.",
        "-5 degrees\n-6 degrees",
        "List<String> of vector<int>",
        "AT&T; R&D; fish & chips",
        "<your name>, please",
        "if a <b and c> d",
        "Wait -- what? --- yes",
        "f[i](x) and a[1] = 2 and [laughs] (smiles)",
        "Name: ______ Date: ____",
        "> 5 or >= 6",
        "C:\\_temp\\_x",
        "I was born in\n1986. A great year.",
        "Don`t say `tis",
        "it costs 5 ~ 6 ~ 7",
        "::: note",
        "First.\n\nSecond.  \nThird,\n\n\n  fourth\t.",
        "[0.5s] Hello [pause:1s]",
        "**",
        "*",
        "a | b | c",
        "1. Only one",
        "",
        "  \n ",
    ],
)
def test_a_text_that_is_not_plainly_marked_up_stays_as_it_is(text: str) -> None:
    assert convert(text, "auto") == text


@pytest.mark.parametrize("text", ["# A", "**b**", "plain", "<b>c</b>"])
def test_the_format_that_is_asked_for_counts(text: str) -> None:
    assert convert(text, "plain") == text
    assert convert("# A **b**", "html") == "# A **b**"
    assert convert("a\nb", "markdown") == convert("a\nb", "html") == "a b"


def test_a_paragraph_longer_than_a_piece_stays_one() -> None:
    words = "word **bold** " * 2000
    assert convert(words, "markdown") == " ".join(["word bold"] * 2000)
    lines = "a line of a wrapped text, *all* one\n" * 1000
    assert convert(lines, "markdown") == " ".join(["a line of a wrapped text, all one"] * 1000)
    assert convert("**b** " + "字" * 9000, "markdown") == "b " + "字" * 9000


@given(
    st.lists(st.sampled_from([*"abc019 \n\n*_#`~[]()<>!|-&;:/\\.", "**", "```", "<b>", "</b>", "&amp;"])).map("".join)
)
def test_no_letter_or_digit_of_marked_text_is_lost(text: str) -> None:
    letters = re.sub(r"[^a-z0-9]", "", text.replace("&amp;", "&").replace("<b>", "").replace("</b>", ""))
    if any(mark in text for mark in ("](", "](", "]:", "![", "[^", "`", "~~~")) or re.search(
        r"\[\d+\]|<[a-c/!]|\d[.)]", text
    ):
        return  # addresses, languages of fences and footnotes' numbers are left out; items may be numbered
    said = convert(text, "auto")
    assert re.sub(r"[^a-z0-9]", "", said.replace("&amp;", "&").replace("<b>", "").replace("</b>", "")) == letters


@given(st.text())
def test_any_text_can_be_converted(text: str) -> None:
    for text_format in ("auto", "markdown", "html"):
        convert(text, text_format)  # type: ignore[arg-type]


PATHOLOGICAL = [
    "*",
    "_",
    "**a ",
    "*a **b ",
    "a**b",
    "*a_ ",
    "[",
    "[a](",
    "![",
    "](",
    "`",
    "` `` ",
    "<",
    "<a ",
    "<b ",
    "<!--",
    "<script>",
    "<script>x</style>",
    "&",
    "&amp;",
    "&#",
    "> ",
    "- ",
    "1. ",
    "1. a\n",
    "|",
    "a|",
    "|-|\n",
    "a|b\n-|-\n",
    "#",
    "# a\n",
    "~",
    "~~a",
    "\n",
    "a\n\n",
    "\\",
    "[a]: ",
    "[a]: http://x\n",
    "[^",
    "a[1]",
    "```\n",
    "<p>",
    "</p>",
    "<pre>",
    "<ol>",
    "<ol><li>",
    "<td>",
    "<sub alias=a>",
    "<div\n",
    "=",
    "a\n===\n",
    " ",
    "\t",
    "字",
    "a",
    "**字：**",
]


@pytest.mark.parametrize("piece", PATHOLOGICAL)
def test_a_very_long_text_is_linear_work(piece: str) -> None:
    text = (piece * (100_000 // len(piece) + 1))[:100_000]
    assert plainly_markdown(text) in (True, False)
    assert len(convert(text, "html")) <= 4 * len(text)
    assert len(convert(text[:50_000], "markdown")) <= 4 * 50_000  # its parser takes some 20 us a mark
