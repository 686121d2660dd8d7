"""What an image of `scenes` shows, read back from its pixels, and how much of its caption that fulfils.

A small network shipped with ditbench (`judge.safetensors`, its card is README.md beside it) reads every attribute; how
it was trained is `bench.measure.judge.train`.
"""

from bench.measure.judge.network import JUDGE, Judge, JudgeError, load, slug
from bench.measure.judge.reading import Seen, read
from bench.measure.judge.score import Scores, chance, intervals, score, summary
from bench.store.metrics import ATTRIBUTES

__all__ = [
    "ATTRIBUTES",
    "JUDGE",
    "Judge",
    "JudgeError",
    "Scores",
    "Seen",
    "chance",
    "intervals",
    "load",
    "read",
    "score",
    "slug",
    "summary",
]
