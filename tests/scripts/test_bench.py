# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how the benchmark gets from what was seen to figures."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

from dev.bench import (crash_safe, limits, paper, paper_cost, paper_loads,
                       plots, prediction, pull, report, report_compare,
                       report_crash_safe, report_paper, report_prediction)
from dev.bench.methods import COPY, MIRROR, SHARED, SYNC, WSM
from dev.bench.rows import Row, field_of, number
from dev.bench.sample import (Sample, latencies, longest_gap, percentiles,
                              rates_between, series)
from dev.bench.settings import Settings
from dev.demo.guest.video import CHUNKS
from dev.rig.basics import TestFailure
from dev.rig.guest import Beat
from dev.rig.image import MIB
from dev.rig.qmp import Json


def beats(moments: list[float], per_second: float = 1000,
          worst_us: int = 0) -> list[Beat]:
    """Heartbeats at @moments of a guest that writes steadily."""
    return [Beat(when, number, 0, round(when * per_second), 0, 0, 0, 0,
                 worst_us, 0) for number, when in enumerate(moments)]


def sample(**values: Any) -> Json:
    """What is kept of a move, as in the JSON file."""
    return Sample(WSM, "load").as_json() | values


class BeatTest(unittest.TestCase):
    """Heartbeats."""

    def test_rates(self) -> None:
        """A second of silence counts, with what was written in it."""
        steady = beats([n / 100 for n in range(301)])
        self.assertEqual([round(rate)
                          for rate in rates_between(steady, 0, 3)],
                         [1000, 1000, 1000])
        self.assertEqual(rates_between([], 0, 3), [])
        silent = beats([0, 0.5, 2.5, 3.6])
        self.assertEqual(len(rates_between(silent, 0, 4)), 2)

    def test_gap(self) -> None:
        """Only silences in the time asked for count, even in part."""
        seen = beats([0, 1, 1.5, 4, 4.2])
        self.assertEqual(longest_gap(seen, 0, 1.2), 1)
        self.assertEqual(longest_gap(seen, 2, 3), 2.5)
        self.assertEqual(longest_gap([], 2, 3), 1)

    def test_series(self) -> None:
        """Times are relative to the begin."""
        line = series(beats([n / 10 for n in range(31)]), 1.0)
        self.assertEqual(line[0], (-1.0, 1000))
        self.assertTrue(all(rate == 1000 for _, rate in line))

    def test_percentiles(self) -> None:
        """They lie between the values; two are too few for none."""
        found = percentiles([float(n) for n in range(1001)])
        self.assertEqual(found["p50"], 500)
        self.assertEqual(found["p99"], 990)
        self.assertEqual(found["max"], 1000)
        self.assertEqual(percentiles([1.0]), {})

    def test_latencies(self) -> None:
        """Heartbeats without a write do not count."""
        seen = beats([0, 1], worst_us=2000) + beats([2, 3])
        self.assertEqual(latencies(seen, 0, 4)["max"], 2)


class LimitTest(unittest.TestCase):
    """Ratios to the limits."""

    def test_time(self) -> None:
        """Bytes on the link at its speed; no link, no limit."""
        move = sample(link_bytes=2000, synchronised=3.0,
                      numbers={"link": 1000})
        self.assertEqual(limits.time_over_limit(move), 1.5)
        self.assertIsNone(limits.time_over_limit(
            sample(link_bytes=2000, synchronised=3.0)))

    def test_bytes(self) -> None:
        """Data, what followed after the handover, and memory."""
        move = sample(link_bytes=330, disk_bytes=200, wsm={
            "disks": [{"pushed": 30, "pulled": 20}]})
        self.assertAlmostEqual(limits.bytes_over_limit(50)(move) or 0, 1.1)

    def test_least(self) -> None:
        """The disk once, and the least memory of the ways that ended."""
        rows = {WSM: [sample(synchronised=1.0, disk_bytes=200, ram_bytes=90)],
                MIRROR: [sample(synchronised=1.0, ram_bytes=70)],
                SHARED: [sample(failure="gone", ram_bytes=1)]}
        self.assertEqual(limits.least_bytes(rows, WSM), 270)
        self.assertIsNone(limits.least_bytes({}, WSM))

    def test_longest_answer(self) -> None:
        """Of the clients if there are any, or as the guest saw it."""
        self.assertEqual(limits.longest_answer(sample(
            latency={"move": {"max": 7.0}})), 7.0)
        self.assertEqual(limits.longest_answer(sample(
            latency={"after": {"max": 7.0}}, worst_write=0.001)), 7.0)
        self.assertEqual(limits.longest_answer(sample(worst_write=1.0)), 1000)
        self.assertIsNone(limits.longest_answer(sample()))

    def test_usable(self) -> None:
        """Half of the throughput in the median second."""
        self.assertTrue(limits.usable(sample(rate_before=0.0)))
        self.assertTrue(limits.usable(
            sample(rate_before=100.0, rates=[5.0, 50.0, 100.0])))
        self.assertFalse(limits.usable(
            sample(rate_before=100.0, rates=[5.0, 49.0, 100.0])))

    def test_best_peer(self) -> None:
        """Neither ourselves, nor shared storage, nor who starves guests."""
        def took(seconds: float, rate: float = 100.0) -> list[Json]:
            return [sample(synchronised=seconds, rate_before=100.0,
                           rates=[rate])]

        rows: dict[str, list[Json]] = {
            WSM: took(1.0), SHARED: took(2.0), SYNC: took(3.0, 10.0),
            COPY: [sample(synchronised=4.0, rate_before=100.0)],
            MIRROR: took(5.0)}
        time = field_of("synchronised")
        self.assertEqual(report_compare.best_peer(rows, time), 5.0)
        del rows[MIRROR]
        self.assertIsNone(report_compare.best_peer(rows, time))


class RowTest(unittest.TestCase):
    """Goals."""

    def test_met(self) -> None:
        """A round that failed fails the goal; without one nothing does."""
        self.assertTrue(Row("s", "w", [1.0, 2.0, 9.0], 2.0).met())
        self.assertFalse(Row("s", "w", [1.0, 3.0, 9.0], 2.0).met())
        self.assertFalse(Row("s", "w", [1.0], 2.0, failed=1).met())
        self.assertFalse(Row("s", "w", [], 2.0).met())
        self.assertTrue(Row("s", "w", [3.0], 2.0, at_least=True).met())
        self.assertIsNone(Row("s", "w", [3.0]).met())

    def test_excuse(self) -> None:
        """Only a goal that is missed, and that no way could meet, has one."""
        self.assertIn("alone take 3.00 s", Row(
            "s", "w", [4.0], 2.0, "s", least=3.0).cells()[-1])
        for row in (Row("s", "w", [4.0], 2.0, least=1.0),
                    Row("s", "w", [4.0], 2.0),
                    Row("s", "w", [1.0], 2.0, least=3.0),
                    Row("s", "w", [4.0], least=3.0)):
            self.assertEqual(row.excuse(), "")

    def test_p99(self) -> None:
        """The goal comes from all ways' time before, given up or not."""
        def felt(before: float, during: float, **more: Any) -> list[Json]:
            return [sample(latency={"before": {"p99": before},
                                    "during": {"p99": during}}, **more)]

        rows = {WSM: felt(1.0, 5.0), SHARED: felt(2.0, 2.0),
                MIRROR: felt(3.0, 3.0, failure="given up")}
        _, during, _ = report_compare.p99_rows("s", rows)
        self.assertEqual((during.values, during.goal), ([5.0], 3.0))
        self.assertFalse(during.met())

    def test_rounds(self) -> None:
        """The heading tells if some rows have fewer."""
        self.assertEqual(report.count_rounds({"a": [{}]}), "1 round")
        self.assertEqual(report.count_rounds({"a": [{}] * 2, "b": [{}] * 3}),
                         "2 to 3 rounds")

    def test_when(self) -> None:
        """Only a section that was measured later says when."""
        facts = {"date": "2026-12-01", "qemu": "10.0.9",
                 "machine": {"load": [0.5, 1.0, 2.0]}}
        document = {"date": "2026-11-01", "later": {"thin": facts}}
        self.assertEqual(report.when(document, "memory"), [])
        text = " ".join(report.when(document, "thin"))
        for part in ("2026-12-01", "10.0.9", "0.5, 1.0, 2.0"):
            self.assertIn(part, text)

    def test_failure_is_shown(self) -> None:
        """A way that was never ready shows what the guest felt."""
        never = sample(failure="TestFailure: given up", rate_before=100.0,
                       rates=[40.0])
        line = report_compare.line_of(MIRROR, [never], {MIRROR: [never]})
        self.assertIn("40%, 40%", line)
        self.assertIn("1 of 1: given up", line)


class PullTest(unittest.TestCase):
    """Traces of the destination."""

    def test_waits(self) -> None:
        """Only reads that a block was asked for, by their request."""
        lines = [
            "1@10.000:virtio_blk_handle_read vdev 0x1 req 0xa sector 8 "
            "nsectors 8",
            "1@10.001:virtio_blk_handle_read vdev 0x1 req 0xb sector 800 "
            "nsectors 8",
            "1@10.002:pull_on_demand_ask bs 0x2 offset 4096 bytes 4096",
            "1@10.003:virtio_blk_req_complete vdev 0x1 req 0xb status 0",
            "1@10.005:virtio_blk_req_complete vdev 0x1 req 0xa status 0",
        ]
        found = pull.waits(lines)
        self.assertEqual(len(found), 1)
        self.assertAlmostEqual(found[0][1], 0.005, 3)


class PaperTest(unittest.TestCase):
    """The paper's tables."""

    def test_passes(self) -> None:
        """Only what comes after the first pass is sent again."""
        found = paper.passes([
            "qemu: a warning",
            "wsm_source_pass sent 8192 bytes in 10 ms, dirty 4096, left 3 ms,"
            " memory 77",
            "7@1.5:wsm_source_pass sent 4096 bytes in 1 ms, dirty 0, left 0 "
            "ms, memory 77",
            "wsm_save_freeze disk vd0 runs 5 bytes dirty 12288"])
        self.assertEqual(found, {"passes": 2, "again": 4096, "left": 12288})
        with self.assertRaises(TestFailure):
            paper.passes([])

    def test_speeds(self) -> None:
        """Bonnie++ does not tell a speed if a test was too short."""
        line = ("1.98,2.00a,guest,1,1795825799,512M,,8192,5,626,57,287169,68,"
                "+++++,+++,1460,78,+++++,+++,+++++,+++,,,")
        self.assertEqual(paper_cost.speeds(line), {
            "putc": 626 * 1024, "block write": 287169 * 1024})
        with self.assertRaises(TestFailure):
            paper_cost.speeds("Can't write block.")

    def test_play(self) -> None:
        """A player lives on its buffer, and stalls when that is empty."""
        steady = [n / CHUNKS for n in range(100)]
        self.assertEqual(paper_loads.play(steady, 0, 99).stalls, 0)
        shifted = steady[:50] + [now + 0.9 for now in steady[50:]]
        self.assertEqual(paper_loads.play(shifted, 0, 99).stalls, 0)
        late = steady[:50] + [now + 3 for now in steady[50:]]
        seen = paper_loads.play(late, 0, 99)
        self.assertEqual(seen.stalls, 1)
        self.assertAlmostEqual(seen.seconds, 3)     # 1 s, and 2 s to fill
        self.assertEqual(paper_loads.play(late, 0, 7).stalls, 0)

    def test_spread(self) -> None:
        """As many as MiB were counted, each at its time."""
        found = paper_loads.spread([10, 11, 12], [0, 2 * MIB, 2 * MIB + 1])
        self.assertEqual([request.end for request in found], [10.5, 11])

    def test_film(self) -> None:
        """Its begin follows its end."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film"
            path.write_bytes(bytes(range(150)))
            film = paper_loads.Film(path, 8)     # kbit/s
        self.assertEqual(film.size, 100)
        self.assertEqual(film.chunk(0), bytes(range(100)))
        self.assertEqual(film.chunk(1), bytes(range(100, 150))
                         + bytes(range(50)))
        self.assertEqual(film.chunk(2), bytes(range(50, 150)))

    def test_interval(self) -> None:
        """As the tables of the sign test have it."""
        values = [float(n) for n in range(1, 11)]
        least, most, sure = report_paper.interval(values)
        self.assertEqual((least, most), (2, 9))
        self.assertAlmostEqual(sure, 1 - 22 / 1024)
        least, most, sure = report_paper.interval(values[:6])
        self.assertEqual((least, most), (1, 6))
        self.assertAlmostEqual(sure, 1 - 2 / 64)
        self.assertEqual(report_paper.interval([5.0, 4.0]), (4, 5, 0.5))

    def test_cost(self) -> None:
        """The two runs of a pair are compared."""
        def runs(*speeds: float) -> list[Json]:
            return [sample(numbers={"putc": speed, "cpu": 1000 / speed})
                    for speed in speeds]

        rows = {"off": runs(100, 200), "on": runs(99, 200)}
        row = report_paper.cost_rows("s", rows, Settings())[0]
        self.assertEqual([round(value, 6) for value in row.values],
                         [0.01, 0.0])
        self.assertTrue(row.met())
        more = report_paper.cost_rows("s", rows, Settings())[-1]
        self.assertEqual([round(value, 4) for value in more.values],
                         [0.0101, 0.0])
        self.assertIn("0.50%", "".join(report_paper.cost_table(rows)))

    def test_tables(self) -> None:
        """Each workload has its column, also if it failed."""
        there = sample(synchronised=40.0, running=39.0, rate_before=10.0,
                       numbers={"passes": 3, "again": 8192, "left": 4096,
                                "pulled": 0, "rate during": 9.0},
                       wsm={"downtime-ms": 60, "disks": [{"sent": MIB}]})
        rows = {"web there": [there], "web back": [there | {
                    "wsm": {"disks": [{"sent": MIB // 4}]}}],
                "video there": [sample(failure="it ended")]}
        table = report_paper.paper_table(rows)
        self.assertIn("| passes over the disk | 3 | - | - |", table)
        self.assertIn("| blocks sent again | 2 | - | - |", table)
        found = report_paper.paper_rows("s", rows, Settings())
        self.assertEqual(found[0].values, [4.0])


class PlotTest(unittest.TestCase):
    """What is drawn."""

    def test_back(self) -> None:
        """A mirror copies as much whatever was written."""
        rows = {"0": [sample(synchronised=1.0)],
                str(16 << 20): [sample(synchronised=2.0)],
                MIRROR: [sample(synchronised=9.0)],
                f"rsync {16 << 20}": [sample(numbers={"seconds": 0.5})]}
        points = plots.back_points(rows, field_of("synchronised"),
                                   number("seconds"))
        self.assertEqual(points[WSM], [("0", 1.0), ("16", 2.0)])
        self.assertEqual(points[MIRROR], [("0", 9.0), ("16", 9.0)])
        self.assertEqual(points["rsync"], [("16", 0.5)])

    def test_typical(self) -> None:
        """The median move; one that failed only if there is no other."""
        moves = [sample(synchronised=value) for value in (3.0, 1.0, 2.0)]
        failed = sample(failure="no")
        self.assertEqual(plots.typical([*moves, failed])["synchronised"], 2.0)
        self.assertIs(plots.typical([failed]), failed)


class PredictionTest(unittest.TestCase):
    """What was said of moves, and what they took."""

    def test_line(self) -> None:
        """The first total that was shown, and that of half of the time."""
        lines = [(0.5, "v moves from a to b: 3 MiB in about 9 s"),
                 (1.0, "v: begins, 0 s of about 10 s"),
                 (4.0, "v: disk-precopy, 3 s of about 12 s"),
                 (7.0, "v: ram-precopy, 6 s of about 2 min")]
        self.assertEqual(prediction.guesses(lines, 8.0), {
            "first seen": 1.0, "first guess": 10.0, "half guess": 12.0})
        self.assertEqual(prediction.guesses(lines[:1], 8.0), {})

    def test_rows(self) -> None:
        """Medians, nine of ten, and a move that failed."""
        moves = [sample(numbers={
            "seconds": 100.0, "expected seconds": 100.0 + error,
            "bytes": 10, "expected bytes": 10, "downtime": 0.4,
            "expected downtime": 0.2}) for error in range(0, 44, 4)]
        rows = report_prediction.prediction_rows(
            "prediction", {"a": moves}, Settings())
        by_name = {row.what: row for row in rows}
        found = by_name["seconds, by the dry run: median error"]
        self.assertAlmostEqual(found.median, 0.20)
        self.assertFalse(found.met())
        found = by_name["seconds, by the dry run: nine of ten are within"]
        self.assertAlmostEqual(found.median, 0.36)
        self.assertFalse(found.met())
        self.assertTrue(by_name["bytes, by the dry run: median error"].met())
        found = by_name["pause, by the dry run: longer or shorter"]
        self.assertAlmostEqual(found.median, 2.0)
        failed = [sample(failure="timeout")]
        rows = report_prediction.prediction_rows(
            "prediction", {"a": failed}, Settings())
        self.assertEqual(rows[0].failed, 1)

    def test_table(self) -> None:
        """One line for each move."""
        lines = report_prediction.prediction_table({"idle 1": [sample(
            numbers={"mbit": 100, "seconds": 9.0, "expected seconds": 8.04,
                     "rate": 5 * MIB}, wsm={"kinds": ["full"]})]})
        self.assertIn("| idle 1 | 100 | 5 | full | 8.0 | 9.0 |", lines[2])

class CrashSafeTest(unittest.TestCase):
    """What the maps of missing blocks cost."""

    def test_turns(self) -> None:
        """Which is first takes turns."""
        found = [kind for kind, _ in crash_safe.in_turns(
            2, lambda kind: Sample(WSM, kind))]
        self.assertEqual(found, [crash_safe.WITHOUT, crash_safe.WITH,
                                 crash_safe.WITH, crash_safe.WITHOUT])

    def test_rows(self) -> None:
        """Pair by pair; one that failed is no pair."""
        def samples(rates: list[float]) -> list[Json]:
            return [sample(numbers={"rate": rate, "missing at last": MIB},
                           rate_before=9.0, synchronised=1.0,
                           latency={"during": {"p50": 2.0, "p99": 4.0}})
                    for rate in rates]

        broken = sample(failure="post-copy is over")
        rows = report_crash_safe.commit_rows(
            "s", {crash_safe.WITHOUT: samples([100, 50, 10]),
                  crash_safe.WITH: [*samples([80, 60]), broken]}, Settings())
        row = next(row for row in rows if "pair by pair" in row.what)
        self.assertEqual((row.values, row.failed), ([0.8, 1.2], 1))
        self.assertFalse(row.met())
        row.failed = 0
        self.assertTrue(row.met())
