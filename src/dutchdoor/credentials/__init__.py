"""The kinds of credential, one file each.

`password.py` is the first. `hashing.py` and `legacy.py` are its parts: the threads it hashes on, and the formats it can
read. `strength.py` is the rule for new passwords. `password.py` and `strength.py` import the parts, never the other
way. A later kind of credential (passkey, one-time code) imports none of these.
"""
