"""Well-known HMAC secrets, as digests: the placeholders of tutorials, frameworks and token debuggers.

An attacker who tries public lists of secrets can forge a token signed with one of them. The module holds 8 bytes of the
SHA-256 of each secret, enough to recognise it. A secret is also recognised in another case, with whitespace around it,
repeated to reach a required length, or filled up with zero bytes, which HMAC does itself. Long secrets are recognised
decoded from base64 or hexadecimal as well.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from typing import Final

__all__ = ["is_known_leaked"]

_DIGEST: Final = 8
_LONGEST: Final = 4096
_PACKED: Final = b64decode(
    "AAwoVFf8lx8AI0JUf5SRQgCBDPi5TW/LAIIxqvmZVpgAkP6QedQ4HQEfwplOOdJRATKyPUjkWt4COAAOMjeRXAOsZ0IW8+FcA+DR/2pIIUoE"
    "ivJDiJGomgT4mW2nY7epBXugPWxEEEgFzwtqvsgEkAYoL9N6/K+GBuyDhDCsJ8kHpw1a7m7XdwqfNMRIpLspCxTVAaWURCoM/AkfsUGHhg01"
    "bt4LpJmBDi414TslUa8O/CDu8aYK4Q/SBZZc4Wm1D/Jwi1MmU7wSf7i0IJwXIhKEu2RpJ9LmErwQaxPIuV4TEfj8gKfqKBNfp9ZxRspUFAvt"
    "v5w/bVYUHPTtLAPcYhXisNPDOJHrFqjX9LxnnR0XgeTxP7hCLBhu926danI+GJdZ+rFiNNYY88ljhkB7pBkK7HOJo7C1GSsvU9N1E60aF+o1"
    "aSBNbBovwm3H6loqHFMsX/mJpXoci/6PgB15dBy9NcfpHI9aHZLa5QSnD7wd8YVAFeMcoh30sH0FubOxHgiePFMjrYAeE2+xOPeNqB6mBPZK"
    "ilCEH5IzoSEFfc4f4okgWTbD/SAldsXcalWtIKqx+Ytl958g6M21tAk+GCFH9yHbhuxdIaM78PFDC6skC+UY+r0nJCQ2QGjyt1xsJTq0KWaF"
    "fSsmnc4aW7kBiCfNS+w8sw/WKASUYaSuF0ooDUSrHp95tSiHeuhpr1fHKYdU2y26tuwql1FsNUtohCr+FqbWMNlMKx+mJxeONCQruA1Tex2j"
    "4ywmtGto/8aPLHDhK3oGRvks8k26X7CjDiz4TCzrVG/MLQCHQ4zvDPktSaI0chjWay1xFkK3JrBELhz6grA1wmwuLsvOYB5yMS6bxslKTL3+"
    "MG139Nr2vbwzXQp9HuXbhjN8h38g2G16NZtA6s3gALY2CLyh5E6mxDZO8q2a8nc9NoTtrQZsytg23SklMxdCmTeo7sHOGWh9OAgpMo6qyVY5"
    "DUdXvxt14zmNy8TDxpF+OhO01Vddt9Y7ZWub7uo3mTxGnp1sWHXTPrG9Q5lH63Y/SCeFx0fqCkB1yV4NL9P9QO7UUVmrpOdBlNFwbtH0CEIr"
    "bP123PiNQjTnFQG0yKNCiCE1DpaRSUOkbx0IHScBReiDiX/bNhxGGkV6xAw6YkZdmtXVUo6+R/e2LWTZ1ONIE0lNE34WMUttSlF/C7aqTAvw"
    "giHz1x5Mp+Lq+Y7Ul054RLYm7y2ZTqXuaP6gVYZPnb1fBrrlElC7YWZe7OIcUNhY4JhezH9Ro0wfjeAOlFITng7fFSZxUob6iv6izw5Sv9Le"
    "Ci5p31LBew4WfzxiUxhUzvZBZIxTM2pnbGTBOVPD3qc1cvPHVF6lOEYQA+9VeIi4choPC1WWkZnAkuhDVaKqYZyFK7xXDa1D3hr0yVcSQy+E"
    "ibdrVyM2DvEQQ6hX+PkjypvyW1kG+Tsm7oBGWUfXwz14P5RZlEcauwERKlmVOZjlSlebWgqSM+RQPe9awVK2+L24u1sRYYwuRAJ4XAti61+z"
    "CHpcgFZdtvKdoFy8IYIN/VGMXaOkx/EXlEJeUPQFrObL3154hj7R/7n8XohImNooBHFe6G5OMsMl9F7vg/58tx4tX2uHPd0b67ZgL65YD1hj"
    "q2DDqeWDyAT6YYuMjeJMewNiKklNPqjHumKvhwR2T6+OYvGW/lnG941jDc0pZsQzZmS6AJzOrEq4ZSPli8DuxCxlLH3Gh9mMmGXoS+M1Mvt4"
    "ZfasvUXv2xNl9zUa46iAkmaFm3reTmjLaG90apW2+DZp2ToDKuYyL2qUGLiHfQMda1HUMd9dfxRrhrJz/zT84Wwtcbg9FLE5bHk2lRceeT1s"
    "hsaqxfskvGyQTFGQ6LRcbKE9UspwyINxxIDfk9auL3MNIagOYajecw18yswIVOJ0DH8g+1HY43QjTpiv50mPdJGj0lrJzGd4jeKiQuz4WnpR"
    "0GShohamerL+aoK8pYh9GlQSeyIlAn1MFEMBr3Gpfoeu2kwa8mt+kB30J0sC936fj9ERgCvlf1qh4uTM4eR/zLHnxrYGxYBOpDdhkbgYgd8a"
    "9O1ysbiB+TjIE35iNIIrM62HwUigg9FRqY6sDQyEmDxg99qtwYTYmHfw1AQehYgxCphnavaF2+Fdde+TCIXqYWOh2O42h0o3xRgeHVqHW5OA"
    "hm6dVofS+rd4sIyOh9MJJFdGQOiI8LtPurKP/4kZS11zvjWCibhxyRQ1r/+KMFTGJOZgl4uwz265sX0PjGl25bVBBBWNXifxwmVlRY2Wnu9u"
    "ytPCjl62A0gvAHaPDi924itD4pFrC0Ee4c6dkkiOHj7uzfmSWLQNx32NjJKAmrYEyTdykoQQFisg/cCS4rf27Si0V5NOqJQT9N5Uk2oYXKqi"
    "ZruUPjQptThj3ZSP5gP2HcA2lNLyz/Zsme2VMMXIxZDWqJWDjCkWE1duldMBaaWcQYuWAEtdE8zxtJbK41zoqbAkltUJ+5CBblyX3zWItaPy"
    "S5hIPG60C2wxmU9yAVBmUzmaLfQv6t2C05pVSMgykYt8mmjoW18Fk+2akAQDrDE7opqzzZ1nv0nQmwo2KL89JQibh2mkp0KVmpw/b7uTbApY"
    "nFbMUbN0w7qcZvi/lTrmZJyvBrtENs2/nUj7Tgz5LKedg00/ysTuJZ2Q+luABOdTndC40gslKJyfhtCBiEx9ZZ+fURH3snp4oGS1AuYdJ+mg"
    "ddF/PUUwc6Cm02bwkacQoUGUCsyUybKhQyjOqrDdcKFyztyuR0dLo1Oo4TVLEV+kQbFf6aPPVqUB3voxCOT3pmWkWSBCL52mf0DLi8QUrqby"
    "8/CVoTkDqcQ76UjFyr2p7lnPb4u9i6zDNOzTBUVJrRZbETILyRWtaXjxtJ9ca67ICEhFtBppryvb4aqbbsGvontE1DsCqbH4mD+BA47dsk5I"
    "UKMvL6azev8yGdUAaLPRfrvk8rdds+rNM0M7MbW0zkZvTFSaYbU/dEzU+bm8tb6kG2xiP3y2RBM2BL+ZY7fi9uTpWylnt/xIOPWjbI25TSe5"
    "k00+CLnJUGQOGzdAungWv48Bz+q64oGxRLfkNbr2mMFkUBF9uy/tjqrd66K8QcUG7BvjGL0gw4AfY65wvfScPDiCEC++9X7H9TptQL90wI64"
    "CK8mwW/7lBaae+HBeNjDTRGFD8F52+piZ3+6wcIbuhmBJyzB0uhyY3XxH8NM+moljU5ow6uP8Tcg6K3DsmiGK7avgsPxPGlWr/goxPV95vFJ"
    "y37Hdee3V+3mMMihFGmy9CRHyU5jtSb9cHTJl1jbM69w+8mg7J1/CLmiygsHyO4NVrzKrLeBCbPws80usIN8m0yWzVd/4lYev/LOXKZz0Ts2"
    "Ec+AzYrtSC1dz73g6vtdcQPTBG7MjdMkKtSDYCSYYIM71a3KAsmkba7WzXm7Zuair9c/3dSnZkj210/w7o2juYDXzYjNfadzZNgklPBdaRe6"
    "2FWU8VgsKbHYom5rik6/z9kIK9z36vWE2dshRI1z+DnaqtblYE6OF9s00zKoqKiW22gzWTJ51zfbdEH9Y6MNStzO40DfCx9L3Y04r4yjt+Xd"
    "9cepqjtDqt6GNtGRyPtt39fcQ5ZU8xPgwvTjeIapy+G4WyfWvLBY4hhtvbG7QZPjDSMEnA6p/+So1qHA2Gtj5K2TygesuNnk6bj95J960+Xi"
    "0M8CveA/5wY4algZDuHogEDn0AUu6+nO5xq5Mv3o6c/MSYDjLsbqDJ722QxYZuoXaEm6Z9Zf6s6c7Izco+zq+P3dzyePO+sEXXjScxBz6yBL"
    "q86I7ZXs1xhw0ZYzFu3GTGUjd4lh7x6l3Sso0sHvJMn9dGCpye8mDpqjxnOv70sGo+DqcObveXyBGPAt+++St3i6/nce8OTC92xYkW7xaMzd"
    "kVSMWvL3ZdWanfy09CiIMz1E6M/0MY99iedYg/RO+eNgg0xO9arf6LH6CAb1wgqPcQRKh/bVJ+bQGGVI9y0EbkTxerz3V3j3Qlvk2/fYOHAb"
    "hsXf+czZK7avTLT7hvt1fRJB1fxhO039Zzan/IPPv+W2fBX8k8sH4a2Sify88WWQjdGK/MOiP8cjLMj83isu26Vr9Pz3MLbZUjbs/U3sdavC"
    "3379zo5KZbcNGP6ZxoUD+MLe/9t/ugOYFmI="
)
_DIGESTS: Final = frozenset(_PACKED[start : start + _DIGEST] for start in range(0, len(_PACKED), _DIGEST))


def is_known_leaked(secret: bytes) -> bool:
    """Return whether a secret is one that attackers try first."""
    bare = secret.rstrip(b"\0").strip().lower()
    return any(hashlib.sha256(form).digest()[:_DIGEST] in _DIGESTS for form in (bare, _unit(bare[:_LONGEST])))


def _unit(text: bytes) -> bytes:
    """Return the shortest piece that makes the text when repeated, with the last repetition perhaps cut short."""
    for size in range(1, len(text) // 2 + 1):
        if text[size:] == text[:-size]:
            return text[:size]
    return text
