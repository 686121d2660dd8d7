"""Text from outside, made inert: names, reasons, captions, paths and messages may hold anything.

What would steer a terminal or turn text around is written out as an escape, so that it is seen and does nothing. Each
format's own signs are escaped where the format is written (`bench/views/escape.py`).
"""

from __future__ import annotations

import re

# C0 and C1 controls, lines of other kinds, marks of direction, invisible signs, private use, halves of surrogates.
_STEERS = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ue000-\uf8ff\ud800-\udfff\U000e0000-\U000e007f]"
)
_STEERING = re.compile(_STEERS)
_BREAKING = re.compile(_STEERS.replace(r"\x08\x0b", r"\x08\x09\x0a\x0b"))


def plain(text: object) -> str:
    """The text with everything that steers a reader's machine written out; lines and tabs stay."""
    return _STEERING.sub(_escaped, str(text).replace("\r\n", "\n"))


def one_line(text: object) -> str:
    """The same on one line."""
    return _BREAKING.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")
