"""An undecided pair → the verdict of a language model behind any OpenAI-compatible service.

Whatever goes wrong leaves the pair a gray area: a failure never clears a question.
"""

from monotreme.llm_judge.asking import ask
from monotreme.llm_judge.service import Service, find_service

__all__ = ["Service", "ask", "find_service"]
