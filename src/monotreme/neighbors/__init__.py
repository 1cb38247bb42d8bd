"""All pairs of unit vectors over a similarity threshold.

Exact, tile by tile (tiles.py); of millions of rows those that lie in one list (lists.py), and how
many that misses. Whatever proposes a pair, a float64 dot product of the stored rows decides; where a
text has several rows, the highest similarity of any two of two texts counts.
"""

from monotreme.neighbors.lists import Lists, Recall, make_lists, measure_recall, pairs_in_lists
from monotreme.neighbors.pairs import Pairs, Side, joined, similarities
from monotreme.neighbors.tiles import margin, pairs_between, pairs_within

__all__ = [
    "Lists",
    "Pairs",
    "Recall",
    "Side",
    "joined",
    "make_lists",
    "margin",
    "measure_recall",
    "pairs_between",
    "pairs_in_lists",
    "pairs_within",
    "similarities",
]
