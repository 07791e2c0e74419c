"""`/lab`: the patterns side by side in a browser, for people who want to see the difference with their own eyes.

Everything on the page is the running system. A lab starts `dutchdoor serve` in a folder of its own (`authority.py`),
a service with a `Verifier` and a service with a plain JWT (`services.py`), and for each of the `patterns.py` two
browsers, that of the owner and that of a thief (`browser.py`, `places.py`). They talk HTTP on loopback. Nothing is
calculated that can be asked: who is accepted is asked of the servers each time, what is stored is read from the
database, and how long a log-out takes is measured while it happens (`watching.py`).

`laboratory.py` is one visitor's lab, `labs.py` holds all of them, `view.py` has what the page shows, and `site.py`
answers HTTP. `dutchdoor lab` runs it.
"""
