# SPDX-License-Identifier: GPL-2.0-or-later
"""The page in a real browser."""

import dataclasses
import json
import unittest
from typing import Any
from unittest import mock

from wsm import pki
from wsm.controller.store import StoreGone

from tests.scripts.controller.chromium import PROGRAM, Chromium, relay
from tests.scripts.controller.doorstep import Served

EVIL = "<img src=x onerror=document.title='evil'>"
ROUND = "Number(document.body.dataset.round)"


@unittest.skipUnless(PROGRAM, "install chromium")
class BrowserTest(Served):
    """Two hosts that are not there, and who looks at them."""

    browser: Chromium

    @classmethod
    def setUpClass(cls) -> None:
        """Start one browser for all tests."""
        super().setUpClass()
        cls.browser = cls.enterClassContext(Chromium())

    def site(self, file: str) -> str:
        """Return where the page is, for a certificate."""
        context = pki.client_context(
            self.home.folder / "ca.pem", self.folder / f"{file}.pem",
            self.folder / f"{file}.key")
        server = self.loop.run(relay(self.port, context))
        self.addCleanup(self.loop.loop.call_soon_threadsafe, server.close)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def look(self, file: str, **how: Any) -> Chromium:
        """Open the page, and wait until it has seen the last round."""
        self.browser.open("about:blank")    # what the last page said is heard
        self.browser.complaints.clear()
        self.browser.open(self.site(file) + "/", **how)
        if how.get("scripts", True):
            self.seen()
        return self.browser

    def seen(self) -> None:
        """Wait until the page has seen the last round."""
        self.browser.wait(f"{ROUND} === {self.made.stats.rounds}")

    def test_map(self) -> None:
        """Hosts, VMs, and words; details by a click; a viewer gives no order."""
        self.mode("observe")
        self.heat()
        page = self.look("viewer")
        self.assertEqual(page.value(
            "[...document.querySelectorAll('.host')].map("
            "(each) => [each.dataset.host, each.querySelectorAll('[data-vm]')"
            ".length, each.classList.contains('hot')])"),
            [["alpha", 2, True], ["beta", 0, False]])
        self.assertIn("alpha's CPU demand was over", page.text("#said"))
        self.assertFalse(page.value("document.querySelector('#tables').open"))
        page.click("[data-vm=db1]")
        page.wait("document.querySelectorAll('#detail polyline').length > 3")
        self.assertIn("db1 is on alpha: CPU now 2.40 cores",
                      page.text("#detail"))
        for kind in ("10 minutes", "24 hours"):
            self.assertIn(f"CPU, {kind}: the top is 2.4 cores",
                          page.text("#charts"))
        page.click("#plan")
        page.wait("document.querySelector('dialog').open")
        self.assertIn("alpha's CPU demand was over", page.text("dialog"))
        for button in ("#yes", "#drain"):
            self.assertFalse(page.value(f"!!document.querySelector('{button}')"))
        self.assertTrue(page.value("document.querySelector('#pause').hidden"))
        self.assertEqual(page.complaints, [])

    def mode(self, mode: str) -> None:
        """Set what is done with decisions."""
        self.loop.run(self.set_mode(mode))

    async def set_mode(self, mode: str) -> None:
        """The same, in the loop that has the store."""
        self.made.leader.take()
        self.made.store.set("test", "mode", mode)

    def test_move(self) -> None:
        """An operator applies a plan; the arrow of the move moves."""
        self.mode("ask")
        self.heat()
        self.hosts.hold.clear()
        page = self.look("operator")
        page.click("#plan")
        page.wait("!!document.querySelector('#yes')")
        self.assertEqual(self.made.journal.moves(), [])     # only shown
        page.click("#yes")
        page.wait("!document.querySelector('dialog').open")
        self.assertIn("user/op", [entry.who for entry
                                  in self.made.ledger.audit(9)])
        self.rounds(1)
        dot = "document.querySelector('[data-move=db1]')"
        page.wait(f"!!{dot}")
        move = self.made.journal.moves()[0]
        places = []
        for sent in (0, move.expected_bytes // 2):
            self.hosts.figures = {"phase": "disk-precopy", "speed": 1 << 20,
                                  "ram": {"transferred": sent}}
            page.wait(f"{dot} && (Number({dot}.dataset.percent) > 40) === "
                      + json.dumps(sent > 0))
            places.append(float(page.value(f"{dot}.getAttribute('cx')")))
        self.assertGreater(places[1], places[0] + 5)
        for words in ("alpha → beta: db1: disk-precopy", "1.0 MiB/s",
                      "s left"):
            self.assertIn(words, page.text("#moves"))
        self.hosts.hold.set()
        self.assertEqual(page.complaints, [])

    def test_orders(self) -> None:
        """Pause and drain, by keys alone; without the token nothing."""
        self.mode("ask")
        self.rounds(4)
        page = self.look("operator")
        page.value("document.querySelector('#plan').focus()")
        page.press("Tab")
        page.press("Enter")
        page.wait("document.querySelector('dialog').open")
        page.press("Escape")
        page.wait("!document.querySelector('dialog').open")
        self.assertFalse(self.made.paused())
        page.click("#pause")
        page.click("#yes")
        page.wait("document.querySelector('#title').innerText"
                  ".endsWith('paused')")
        self.assertTrue(self.made.paused())
        page.click("[data-host=alpha] > button")
        page.click("#drain")
        page.wait("document.querySelector('dialog').open")
        self.assertIn("2 VMs are to go elsewhere: db1, web",
                      page.text("dialog"))
        page.click("#yes")
        page.wait("!document.querySelector('dialog').open")
        self.rounds(1)
        self.assertEqual(list(json.loads(self.made.store.setting("drains"))),
                         ["alpha"])
        self.assertEqual(page.complaints, [])
        self.assertEqual(page.value(
            "fetch('/v1/pause', {method: 'POST', body: '{\"on\": false}', "
            "headers: {'Content-Type': 'application/json'}})"
            ".then((reply) => reply.status)"), 403)
        self.assertTrue(self.made.paused())

    def test_late(self) -> None:
        """An older answer that comes later is not shown, nor asked about."""
        self.mode("ask")
        self.rounds(4)
        page = self.look("operator")
        self.assertEqual(page.value(
            "(() => { const asked = plan(); pause(); return asked.then(() => "
            "document.querySelector('dialog h2').innerText); })()"),
            "Begin nothing any more?")
        page.press("Escape")
        self.assertTrue(page.value("""(async () => {
            const real = window.fetch;
            let wait = true, late = null;
            window.fetch = async (...what) => {
                const reply = await real(...what);
                if (wait && what[0] === '/v1/map') {
                    wait = false;
                    await new Promise((done) => { late = done; });
                }
                return reply;
            };
            const old = look();
            while (!late) {
                await new Promise((done) => setTimeout(done, 5));
            }
            await ask('/v1/pause', {on: true});
            await look();
            late();
            await old;
            return document.querySelector('#title').innerText;
        })()""").endswith("paused"))

    def test_no_store(self) -> None:
        """While the store is away the tables stay."""
        self.rounds(4)
        page = self.look("viewer")
        with mock.patch("wsm.controller.page.whole",
                        side_effect=StoreGone("away")) as whole:
            page.value("(document.querySelector('#tables').open = true, "
                       "look())")
            self.assertTrue(whole.called)
        self.assertTrue(page.value("document.querySelector('#rows') !== null"))

    def test_strangers(self) -> None:
        """Another page uses the certificate in vain; no script but ours runs."""
        self.rounds(4)
        target = self.site("operator")
        page = self.look("viewer")
        page.value(f"fetch('{target}/v1/pause', {{method: 'POST', mode: "
                   "'no-cors', body: '{\"on\": true}'}).catch(() => 0)")
        self.assertFalse(self.made.paused())
        self.assertIsNone(page.value(
            f"fetch('{target}/v1/me').then((reply) => reply.text())"
            ".catch(() => null)"))
        page.value("(() => { const it = document.createElement('script'); "
                   "it.textContent = 'document.title = \"evil\"'; "
                   "document.body.append(it); })()")
        self.assertEqual(page.value("document.title"), "test")
        self.assertTrue(any("Content Security Policy" in each
                            for each in page.complaints), page.complaints)

    def test_names(self) -> None:
        """What looks like HTML is text, wherever it comes from."""
        self.rounds(4)
        self.made.store.alarm("host x", EVIL)
        fleet = self.made.fleet
        guest = fleet.guests[EVIL] = fleet.guests.pop("web")
        guest.use = dataclasses.replace(guest.use, name=EVIL)
        for scripts in (True, False):
            page = self.look("operator", scripts=scripts)
            self.assertIn(EVIL, page.value("document.body.textContent")
                          + str(page.value("[...document.querySelectorAll("
                                           "'[data-vm]')].map((each) => "
                                           "each.dataset.vm)")))
            self.assertEqual(page.value(
                "document.querySelectorAll('img').length"), 0)
            self.assertEqual(page.value("document.title"), "test")
        self.assertEqual(page.complaints, [])

    def test_no_scripts(self) -> None:
        """Without JavaScript all of it is there as tables."""
        self.mode("observe")
        self.heat()
        page = self.look("viewer", scripts=False)
        text = page.text("#rows")
        for words in ("alpha\tactive, too hot\t82 %, peak",
                      "db1\talpha\t1.0 GiB\tkept",
                      "alpha's CPU demand was over"):
            self.assertIn(words, text)
        self.assertEqual(page.value(
            "document.querySelector('#live').offsetHeight"), 0)

    def test_many(self) -> None:
        """More than 200 hosts are cells, with arrow keys between them."""
        self.rounds(4)
        fleet = self.made.fleet
        for number in range(300):
            fleet.add_host(self.hosts.host(f"h{number:03}"))
        page = self.look("viewer")
        self.assertEqual(page.value(
            "document.querySelectorAll('#boxes g').length"), 302)
        self.assertEqual(page.value(
            "document.querySelectorAll('.host').length"), 0)
        page.value("document.querySelector('#boxes g').focus()")
        page.press("ArrowRight")
        page.press("Enter")
        page.wait("document.querySelector('.host')?.dataset.host === 'beta'")
        page.wait("document.querySelector('#detail').innerText"
                  ".startsWith('Host beta')")
        self.assertEqual(page.complaints, [])
