"""Generate: what a model answers to questions, from a file or from a person at a terminal.

chosen.py    which model is meant: a run's base, adapter or merge, or any folder
answerer.py  a loaded model: the instruction template, greedy answers, several at once
answers.py   a file of questions → a file of answers, resumable
chat.py      one question after the other
"""
