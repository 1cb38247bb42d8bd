"""A pair of look-alike questions → verdict, reason and confidence."""

from monotreme.triage.background import Background, background
from monotreme.triage.cascade import CERTAIN, triage

__all__ = ["CERTAIN", "Background", "background", "triage"]
