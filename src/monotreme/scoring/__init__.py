"""Benchmarks put to a model: prompts (protocol) → log-likelihoods (scorer) → records (tasks) → numbers.

The numbers are pure functions of the records: results, statistics, deltas. `evaluate` reports with
them, `merge` chooses with them.
"""
