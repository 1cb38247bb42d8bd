"""All pairs of unit vectors over a similarity threshold.

Exact, tile by tile (tiles.py). Whatever proposes a pair, a float64 dot product of the stored rows
decides; where a text has several rows, the highest similarity of any two of two texts counts.
"""

from monotreme.neighbors.pairs import Pairs, Side, joined, similarities
from monotreme.neighbors.tiles import margin, pairs_between, pairs_within

__all__ = ["Pairs", "Side", "joined", "margin", "pairs_between", "pairs_within", "similarities"]
