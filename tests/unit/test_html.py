"""HTML is read as text, and never executed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.message.html import plain


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>one<p>two", "one\n\ntwo"),
        ("one<br>two<br><br>three", "one\ntwo\n\nthree"),
        ("  a \n b\t<b> c </b> d", "a b c d"),
        ("<h1>Hi</h1><ul><li>one<li>two</ul>", "Hi\n\n- one\n- two"),
        ("<table><tr><td>1<td>2<tr><td>3<td>4</table>", "1  2\n3  4"),
        ("<pre>x  y\n  z</pre>", "x  y\n  z"),
        ("&lt;b&gt; &amp; &uuml;&nbsp;&#252;", "<b> & ü ü"),
        ("x < y and y > z", "x < y and y > z"),
        ("a<!-- <p> b -->c<!-- d", "ac"),
        ("<title>no</title><style>p {}</style><script>alert('</p>')</script>yes", "yes"),
        ("<SCRIPT>never ended", ""),
        ('<a href="https://example.com/?a=1&amp;b=2">here</a> and on', "here <https://example.com/?a=1&b=2> and on"),
        ("<a href=https://example.com>https://example.com</a>", "https://example.com"),
        ("<a href='mailto:bob@example.com'>bob@example.com</a>", "bob@example.com"),
        ("<a href='javascript:alert(1)'>click</a> <a href='#top'>top</a>", "click top"),
        ('<img src="x" alt="a photo"><img>', "[a photo]"),
        ("&#99999999999999999999;&#xD800;", "\ufffd\ufffd"),
        ("<p", ""),
        ("", ""),
    ],
)
def test_html_is_read_as_text(source: str, text: str) -> None:
    assert plain(source) == text


def test_a_number_without_end_is_no_character() -> None:
    assert plain(f"&#{'9' * 5000};") == "\ufffd"


markup = some.lists(
    some.sampled_from(["<", ">", "a", "<p>", "</p>", "<pre>", "\n", " ", "<a href='", "&#", "9", "<!--", "-->"])
)


@given(some.one_of(some.text(), markup.map("".join)))
def test_whatever_the_html_is_it_is_text(source: str) -> None:
    text = plain(source)
    assert text == text.strip("\n") and "\n\n\n" not in text
