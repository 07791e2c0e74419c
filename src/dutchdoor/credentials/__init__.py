"""The ways to prove who one is, one file each.

`password.py` is the first. `hashing.py` and `legacy.py` are its parts (the threads it hashes on, the formats it can
read), `strength.py` is the rule for new passwords. Parts are imported by `password.py` and `strength.py`, never the
other way, and a later way to prove (passkey, one-time code) imports none of them.
"""
