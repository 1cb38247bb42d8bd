"""The pocket room: a tiny base model, generated questions and a benchmark, all made here.

It lets the six stages run for real on a laptop. `questions.py` makes three training sources with
planted duplicates and leaks, and a benchmark; `prose.py` the text on which `pretrain.py` trains
the base in `base/`; `build.py` writes the data files; `planted.py` says what a run found of what
was planted.
"""
