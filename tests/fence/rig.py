"""A node and a store in one hand, with the entries of its log and the tokens that they cover."""

from __future__ import annotations

from typing import Any

from tests.fence.simulator import Token

from dutchdoor.revocation.fence import Fence
from dutchdoor.revocation.lease import Terms
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.messages import Answer, Poll
from dutchdoor.revocation.node import Answered, Ask, Node
from dutchdoor.revocation.node_messages import NodeRow, ReadLog, ReadRows, Register, Renew, Renewed, Rows

SALT = b"salt"
SOON = 2_000_000_000.0
TERMS = Terms()
LATE = TERMS.guarded(TERMS.lease_for)


def session(id: str, seq: int = 0, expires_at: float = SOON) -> Revocation:
    return Revocation(kind="session", id=id, expires_at=expires_at, seq=seq)


def bearer(sid: str | None = "s", *, sub: str = "ada", epoch: int = 1, jti: str = "t", kid: str = "k") -> Token:
    return Token(sid, sub, epoch, jti, kid, SOON, 0)


class Rig:
    """A node and a store in one hand: questions are answered when the test says so."""

    def __init__(self, terms: Terms = TERMS, *, log_epoch: int = 1) -> None:
        self.node, self.now, self.log_epoch = Node(terms), 100.0, log_epoch
        self.log: list[Revocation] = []
        self.rows: dict[str, NodeRow] = {}
        self.asked: list[Ask] = []
        self.answers: list[Answered] = []
        self.keys = 0
        self.begin()
        self.serve()

    def begin(self) -> None:
        self.node.want_lease(self.now)

    def sort(self) -> None:
        for action in self.node.take_actions():
            match action:
                case Ask():
                    self.asked.append(action)
                case Answered():
                    self.answers.append(action)

    def serve(self) -> None:
        self.sort()
        while self.asked:
            ask = self.asked.pop(0)
            self.node.answered(ask.number, self.answer(ask.question), self.now)
            self.sort()

    def answer(self, question: object) -> Renewed | Rows | None:
        match question:
            case Register(row):
                self.rows[row.id] = row
            case Renew(row, after):
                there = row.id in self.rows
                if there:
                    self.rows[row.id] = row
                head, after = len(self.log), after if row.log_epoch == self.log_epoch else 0
                return Renewed(
                    there=there, log_epoch=self.log_epoch, salt=SALT, after=after, entries=self.log[after:], upto=head,
                    head=head, rows=list(self.rows.values()),
                )  # fmt: skip
            case ReadLog(log_epoch, after):
                head, after = len(self.log), after if log_epoch == self.log_epoch else 0
                return Renewed(
                    there=True, log_epoch=self.log_epoch, salt=SALT, after=after, entries=self.log[after:], upto=head,
                    head=head,
                )  # fmt: skip
            case ReadRows():
                return Rows(log_epoch=self.log_epoch, rows=list(self.rows.values()))
        return None

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.node.next_at < until:
            self.now = max(self.now, self.node.next_at)
            self.node.tick(self.now)
            self.serve()
        self.now = until
        self.node.tick(self.now)
        self.serve()

    def poll(self, poll: Poll, credential: str = "c") -> Answer | None:
        self.keys += 1
        self.node.polled(self.keys, poll, self.now, credential=credential)
        self.serve()
        for answer in self.answers:
            if answer.key == self.keys:
                return answer.answer
        return None

    def end(self, id: str) -> Fence:
        self.log.append(session(id, seq=len(self.log) + 1))
        longest = max(row.lease_for for row in self.rows.values())
        fence = self.node.fence(len(self.log), self.log_epoch, self.now, longest_lease=longest)
        self.serve()
        return fence


def a_poll(holder: str = "h" * 22, applied: int = 0, *, epoch: int = 1, **given: Any) -> Poll:
    return Poll(**({"holder": holder, "log_epoch": epoch, "applied_seq": applied, "wait_ms": 2500} | given))
