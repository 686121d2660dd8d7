"""Words of a caption in any script. English in ASCII is split as it always was: runs of letters and digits.

Text is brought to one form (NFKC, case folded), so that `café` is one word however it is typed. A word is a run of
letters, marks and digits. In scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each
letter with its marks is a word, and so is each emoji or other symbol. Invisible format characters are left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

VERSION = 2  # of the rule; whoever changes it raises it, and prompts are prepared again
_ASCII = re.compile(r"[a-z0-9]+")
_NO_SPACES = (  # ranges of letters of scripts without spaces
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # ideographs
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)


def words(text: str) -> list[str]:
    """Words of a caption, in order."""
    if text.isascii():
        return _ASCII.findall(text.lower())
    return list(_words(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())))


def _words(text: str) -> Iterator[str]:
    word, alone = "", False  # `alone`: the word is one letter of a script without spaces; only marks may follow
    for letter in text:
        kind = _kind(letter)
        if kind == "format":
            continue
        if (kind == "mark" and word) or (kind == "letter" and not alone):
            word += letter
        else:
            if word:
                yield word
            word, alone = ("" if kind == "space" else letter), kind == "alone"
    if word:
        yield word


@lru_cache(maxsize=65536)
def _kind(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cf" or 0xFE00 <= ord(letter) <= 0xFE0F:  # joiners, variants of emoji
        return "format"
    if category.startswith("M"):
        return "mark"
    if category == "So" or any(low <= ord(letter) <= high for low, high in _NO_SPACES):
        return "alone" if category[0] in "LNS" else "space"
    return "letter" if category[0] in "LN" else "space"
