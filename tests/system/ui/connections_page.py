"""*Admin > Connections* as a person uses it: by labels, buttons and what appears on the screen."""

from __future__ import annotations

import re
from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect

#: Keeps the next outcome of a test that appears: it may be gone from the screen before anybody asks for it.
CATCH_OUTCOME = """() => {
    const shown = new Set(document.querySelectorAll("[role=status]"));
    const part = (toast, name) => toast.querySelector(`[data-part=${name}]`)?.textContent ?? "";
    window.outcome = new Promise(found => {
        new MutationObserver((_, observer) => {
            for (const toast of document.querySelectorAll("[role=status]")) {
                if (!shown.has(toast) && part(toast, "title").startsWith("Test Connection")) {
                    observer.disconnect();
                    found([part(toast, "title"), part(toast, "description")]);
                }
            }
        }).observe(document.body, {childList: true, subtree: true});
    });
}"""


@dataclass(frozen=True)
class Outcome:
    """What the screen says after a press of *Test Connection*."""

    title: str
    message: str


class ConnectionForm:
    """
    The form that adds or edits a connection.

    :param dialog: the dialog it is in.
    """

    def __init__(self, dialog: Locator) -> None:
        self.dialog = dialog

    def field(self, label: str) -> Locator:
        """The row with this label."""
        text = re.compile(rf"^{re.escape(label)}\s*\*?\s*$")
        return self.dialog.get_by_role("group").filter(has=self.dialog.page.locator("label", has_text=text))

    def input(self, label: str) -> Locator:
        """What stands next to this label, to type into."""
        return self.field(label).locator("input:not([type=hidden]):not([aria-hidden]), textarea")

    def fill(self, **values: str) -> None:
        """Type into the fields with these labels (``_`` for space)."""
        for name, value in values.items():
            self.input(name.replace("_", " ")).fill(value)

    def choose(self, label: str, option: str) -> None:
        """Pick an option of a list."""
        self.input(label).fill(option)
        self.dialog.page.get_by_role("option", name=option, exact=True).click()

    def open_section(self, title: str) -> None:
        """Unfold a part of the form."""
        self.dialog.get_by_role("button", name=title, exact=True).click()

    def close(self) -> None:
        """Leave the form, and nothing saved."""
        self.dialog.get_by_role("button", name="Close").click()
        expect(self.dialog).to_be_hidden()

    @property
    def save_button(self) -> Locator:
        return self.dialog.get_by_role("button", name="Save")

    def save(self) -> None:
        """Save, and wait until the form is gone."""
        self.save_button.click()
        expect(self.dialog).to_be_hidden()


class ConnectionsPage:
    """
    The list of connections.

    :param page: the tab.
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self) -> None:
        """Show the list, as it is after the page has been loaded."""
        if not self.page.url.endswith("/connections") or self.page.get_by_role("dialog").count():
            self.page.goto("/connections")

    def add(self, conn_id: str) -> ConnectionForm:
        """Begin a new connection of type M2P."""
        self.page.get_by_role("button", name="Add Connection").click()
        form = ConnectionForm(self.page.get_by_role("dialog"))
        form.fill(Connection_ID=conn_id)
        form.choose("Connection Type", "M2P")
        form.input("Base URL").wait_for()
        return form

    def edit(self, conn_id: str) -> ConnectionForm:
        """Open a connection."""
        self.row(conn_id).get_by_role("button", name="Edit Connection").click()
        form = ConnectionForm(self.page.get_by_role("dialog"))
        form.input("Base URL").wait_for()
        return form

    def test(self, conn_id: str) -> Outcome:
        """Press *Test Connection* and return what appears."""
        self.page.evaluate(CATCH_OUTCOME)
        self.row(conn_id).get_by_role("button", name="Test Connection").click()
        title, message = self.page.evaluate("window.outcome")
        return Outcome(title, message)

    def row(self, conn_id: str) -> Locator:
        return self.page.get_by_role("row").filter(has=self.page.get_by_role("cell", name=conn_id, exact=True))
