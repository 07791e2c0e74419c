"""The page of the console about invitations."""

from __future__ import annotations

from tests.web.test_console import Console
from tests.web.test_console_system import console, names, post, watched

from dutchdoor.testing.clock import Clock

__all__ = ["console", "watched"]

BOB = "bob@example.com"


def test_w62_an_administrator_invites_and_withdraws(console: Console) -> None:
    """W62: the page invites, lists who is invited by whom, sends again and withdraws; a wrong form is shown again."""
    root = console.one()
    sent = post(root, "/admin/invitations", email=BOB, name="<b>Bob", roles="editor")
    assert (sent.status_code, sent.headers["location"]) == (303, "/admin/invitations?done=invitation-sent")
    page = root.get(sent.headers["location"]).text
    assert "The invitation was mailed." in page and BOB in page and "&lt;b&gt;Bob" in page and "<b>Bob" not in page
    assert "root@example.com" in page
    for wrong, status in (({"email": "bob"}, 422), ({"email": BOB, "roles": "no;role"}, 422),
                          ({"email": "ada@example.com"}, 409)):  # fmt: skip
        refused = post(root, "/admin/invitations", **wrong)
        assert refused.status_code == status and 'role="alert"' in refused.text and wrong["email"] in refused.text
    (first,) = console.call(console.auth.directory.invitations.listed)
    assert post(root, f"/admin/invitations/{first.id}/send").status_code == 303
    (second,) = console.call(console.auth.directory.invitations.listed)
    assert second.id != first.id
    assert isinstance(console.clock, Clock)
    gone = post(root, f"/admin/invitations/{second.id}/withdraw")
    assert "The invitation was withdrawn." in root.get(gone.headers["location"]).text
    assert post(root, f"/admin/invitations/{second.id}/withdraw").status_code == 404
    assert console.call(console.auth.directory.invitations.listed) == []
    assert {"invitation_sent", "invitation_withdrawn"} <= set(names(console))
