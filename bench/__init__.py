"""Speed and memory. `python -m bench` runs everything; `python -m bench drain` one; each prints its figures.

Two cores shared with others drift by more than what is measured, so every comparison is between two things of one run,
taken in turns, and the median of the ratios counts.
"""
