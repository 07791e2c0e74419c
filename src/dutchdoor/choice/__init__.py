"""What a team needs, and what follows from it: a pattern for each client, a configuration, and what both cost.

Read in this order: `questions.py` (what is asked), `rules.py` (what decides, with reason and source), `advice.py` (the
answer), `figures.py` (what was measured), `estimate.py` (what a size costs).
"""
