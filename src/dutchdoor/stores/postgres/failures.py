"""What an exception of the driver or the network means."""

from __future__ import annotations

import ssl

from asyncpg.exceptions import ClientConfigurationError, PostgresError

from dutchdoor.errors import Conflict, DutchdoorError, InvalidInput, Unavailable

__all__ = ["Refusal", "is_fatal", "meant"]

_CONFLICTS = frozenset({"DD001", "23505", "40001", "40P01"})
_INVALID = ("22", "54")
_HOPELESS = frozenset({"28000", "28P01", "3D000", "42501", "42704"})


def meant(exc: BaseException) -> DutchdoorError:
    """Return what an exception of the driver or the network means to the callers of a store. It is raised `from None`:
    the original holds values of rows, such as an e-mail address that is taken, and a log of it would show them.
    """
    if isinstance(exc, DutchdoorError):
        return exc
    if isinstance(exc, TimeoutError):
        return Unavailable("postgres: no answer")
    if isinstance(exc, PostgresError):
        state, text = exc.sqlstate or "", str(exc.args[0])  # without the lines after it, DETAIL and HINT
        if state in _CONFLICTS:
            return Conflict(f"postgres: {state}")
        if state.startswith(_INVALID):  # its text repeats the value
            return InvalidInput(f"postgres: {state} {type(exc).__name__}")
        if "unsupported startup parameter" in text:  # PgBouncer, in any mode
            return Refusal(f"postgres: {text}: behind a proxy that pools add ?pooling=transaction to the URL")
        if state == "42501":
            text += ". The role has to own the schema dutchdoor, or be allowed to create it (GRANT CREATE ON DATABASE)"
        if state in _HOPELESS:
            return Refusal(f"postgres: {text}")
        return Unavailable(f"postgres: {state} {text}")
    if isinstance(exc, ssl.SSLError):
        return Unavailable(f"postgres: TLS: {exc.reason}")
    if isinstance(exc, ClientConfigurationError):
        # Of the driver's texts, only those that hold no more than a path are repeated.
        text = str(exc.args[0])
        known = text.startswith(("`sslmode` parameter", "root certificate file"))
        if text.startswith("root certificate"):
            text += ": name the authority's certificate with sslrootcert=FILE in the URL"
        return Refusal(f"postgres: {text if known else 'the URL cannot be used as it is'}")
    if isinstance(exc, ConnectionRefusedError):
        return Unavailable("postgres: no server listens at this address")
    if isinstance(exc, OSError):
        # Without a number, it is the driver's own: the server does not speak TLS.
        return Unavailable(f"postgres: {exc.strerror or (exc if type(exc) is ConnectionError else type(exc).__name__)}")
    return Unavailable(f"postgres: {type(exc).__name__}")


class Refusal(Unavailable):
    """The server does not know this role, or refuses it. While opening, waiting cannot help; later an operator may
    repair it.
    """


def is_fatal(exc: PostgresError) -> bool:
    """Whether the server has closed the connection, or will."""
    return str(getattr(exc, "severity_en", "")) in {"FATAL", "PANIC"} or (exc.sqlstate or "").startswith(("08", "57P"))
