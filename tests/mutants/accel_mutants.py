# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of the way to another accelerator, and of the guest's clock."""

from tests.mutants.mutants import Mutant

CLOCK = "migration/wsm/accel/clock.c"
SECTION = "migration/wsm/clock.c"
OPS = "migration/wsm/source/ops.c"
SOURCE = "migration/wsm/source/source.c"


def of_clock(name: str, rule: str, old: str, new: str) -> Mutant:
    """Return a mutant of what the counter is elsewhere."""
    return Mutant("test-wsm-clock", name, rule, CLOCK, old, new)


def of_section(name: str, rule: str, old: str, new: str) -> Mutant:
    """Return a mutant of when the counter is saved and set."""
    return Mutant("test-wsm-clock-section", name, rule, SECTION, old, new)


def of_way(name: str, rule: str, file: str, old: str, new: str) -> Mutant:
    """Return a mutant of who may go, and what is told."""
    return Mutant("test-wsm-source-ops", name, rule, file, old, new,
                  "/wsm/source-ops/accel")


ACCEL = [
    of_clock("one-sided", "two frequencies are alike whichever is higher",
             "a > b ? a - b : b - a", "a > b ? a - b : 0"),
    of_clock("lower-one", "the limit is of the higher one", "MAX(a, b)",
             "MIN(a, b)"),
    of_clock("forbidding", "what is just within the limit is alike",
             "apart * 1000000 <= ", "apart * 1000000 < "),
    of_clock("backwards", "ticks before the first are negative",
             "ticks < 0 ? -muldiv64(-(uint64_t)ticks, to, from)",
             "ticks < 0 ? muldiv64(-(uint64_t)ticks, to, from)"),
    of_clock("not-wide", "nor do they overflow", "muldiv64(ticks, to, from);",
             "ticks * to / from;"),
    of_clock("other-way", "the frequency is what it becomes",
             "muldiv64(ticks, to, from);", "muldiv64(ticks, from, to);"),
    of_clock("too-soon", "what was measured shortly is not known",
             "ns < WSM_KHZ_MIN_NS ? 0 :", "ns <= 0 ? 0 :"),
    of_clock("cut-off", "a frequency is rounded", " + 0.5", ""),
    of_clock("any-frequency", "one that cannot be is not known",
             "khz < UINT32_MAX ? khz : 0", "(uint32_t)(uint64_t)khz"),
    of_section("not-first", "it is there before what is refused without it",
               "    .priority = MIG_PRI_MAX,\n", ""),
    of_section("always-there", "it is sent to who has to know", "return "
               "w->source && wsm_source_tells_clock(w->source);",
               "return w->source;"),
    of_section("too-late", "what the guest does meanwhile may keep it here",
               "return !why;", "return true;"),
    of_section("says-not-why", "and the user is told why",
               "        migrate_set_error(migrate_get_current(), err);\n", ""),
    of_section("asks-its-like", "unless it goes to its like",
               "if (qatomic_read(&s->accel_there) & s->accel) {",
               "if (false) {"),
    of_section("twice", "what has come is set once",
               "    w->has_clock = false;\n    trace", "    trace"),
    of_section("older-attempt", "and not if an attempt before brought it",
               "    w->has_clock = false;\n    start", "    start"),
    of_section("both-unused", "the answer names what is there",
               "WSM_FEATURES_ACCEL & ~wsm_accel_feature[wsm_accel()]",
               "WSM_FEATURES_ACCEL"),
    of_way("goes-anyway", "a guest does not go where it cannot run", OPS,
           "there && !(there & s->accel) && s->only_here) {", "false) {"),
    of_way("stays-anyway", "one that can goes", OPS, " && s->only_here) {",
           ") {"),
    of_way("not-to-its-like", "and so does one to its like", OPS,
           "if (there && !(there & s->accel) &&", "if (there &&"),
    of_way("not-to-older", "and to who says nothing", OPS,
           "if (there && !(there & s->accel)", "if (!(there & s->accel)"),
    of_way("loses-its-pace", "unless that has to be told its counter", OPS,
           "if (!there && s->paced) {", "if (false) {"),
    of_way("keeps-its-pace", "who can be told is", OPS,
           "if (!there && s->paced) {", "if (s->paced) {"),
    of_way("copies-first", "before that nothing is copied", OPS,
           "if (c->connection == 1 && wsm_source_check_accel("
           "s, c->features) &&\n        ++s->nwelcome == "
           "s->start.channels) {",
           "if (c->connection == 1 && ++s->nwelcome == s->start.channels &&\n"
           "        (wsm_source_check_accel(s, c->features), true)) {"),
    of_way("names-swapped", "it says what is where", OPS,
           'feature & WSM_FEATURE_KVM ? "KVM"',
           'feature & WSM_FEATURE_TCG ? "KVM"'),
    of_way("tells-always", "the counter is told only where it matters", SOURCE,
           "return there && (s->paced || !(there & s->accel));",
           "return there;"),
    of_way("tells-older", "and not who does not know of it", SOURCE,
           "return there && (s->paced || !(there & s->accel));",
           "return s->paced || !(there & s->accel);"),
    of_way("tells-not-its-pace", "one of the guest's own is told its like, too",
           SOURCE, "return there && (s->paced || !(there & s->accel));",
           "return there && !(there & s->accel);"),
    of_way("asks-of-none", "it is not asked who cannot matter", SOURCE,
           "    if (accel) {\n        s->start.features |= "
           "WSM_FEATURES_ACCEL;\n    }", "    s->start.features |= "
           "WSM_FEATURES_ACCEL;"),
    Mutant("test-wsm-protocol", "answers-all",
           "WELCOME has only what is there", "migration/wsm/wire/start.c",
           "return start->features & WSM_FEATURES & ~start->unused;",
           "return start->features & WSM_FEATURES;"),
    Mutant("test-wsm-rejoin", "guest-comes", "no guest comes any more",
           "migration/wsm/dest/rejoin.c",
           "        .unused = WSM_FEATURES_ACCEL,\n", ""),
]
