# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what the other host of a move says of its VMs."""

import asyncio
import math
import unittest

try:
    # pylint: disable=ungrouped-imports
    from wsm.agent.other import Peers, Told
except ImportError:
    PRESENT = False
else:
    PRESENT = True
from wsm.plan.promise import Breach
from wsm.plan.plain import to_plain


@unittest.skipUnless(PRESENT, "python3-aiohttp is needed")
class PeersTest(unittest.TestCase):
    """What the source makes of it."""

    def test_listens(self) -> None:
        """Heard, silent, silent for long, heard again."""
        now, said = [0.0], [to_plain(Told(True, (Breach("far", "io", 30.0,
                                                       20.0),), 5e6, 4e6, True, True))]

        async def ask(_at: str, host: str, _move: str) -> object:
            assert host == "beta"
            if not said:
                raise OSError("away")
            return said[0]

        peers = Peers(ask, lambda: now[0])
        peers.follow("m", "beta", "1.2.3.4:7443")
        peers.follow("n", "gamma", "")
        answers = said.pop()
        with self.assertLogs("wsm-agent", "WARNING") as log:
            for _ in range(100):        # never heard: it is not waited for
                now[0] += 1
                asyncio.run(peers.look())
        self.assertEqual(len(log.output), 1)
        self.assertFalse(peers.watches("m"))
        self.assertEqual(peers.breaches("m"), [])
        self.assertEqual(peers.leaves("m"), math.inf)
        said.append(answers)
        asyncio.run(peers.look())
        self.assertTrue(peers.watches("m"))
        self.assertEqual([each.vm for each in peers.breaches("m")], ["far"])
        self.assertTrue(peers.near("m") and peers.heeds_disks("m"))
        self.assertEqual(peers.leaves("m"), 5e6)
        self.assertEqual(peers.leaves("m", True), 4e6)
        said.clear()
        for seconds, vm in ((10, "far"), (1, "beta")):
            now[0] += seconds
            with self.assertLogs("wsm-agent", "WARNING"):
                peers._peers["m"].complained = False  # pylint: disable=W0212
                asyncio.run(peers.look())
            self.assertEqual([each.vm for each in peers.breaches("m")], [vm])
        self.assertIn("says nothing", str(peers.breaches("m")[0]))
        said.append({"watches": "rubbish"})
        asyncio.run(peers.look())
        self.assertEqual([each.vm for each in peers.breaches("m")], ["beta"])
        said[0] = {}                    # nobody there was promised anything
        asyncio.run(peers.look())
        self.assertEqual(peers.breaches("m"), [])
        peers.forget("m")
        self.assertFalse(peers.watches("m"))


if __name__ == "__main__":
    unittest.main()
