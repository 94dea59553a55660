# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of memory by reference, of packing, and of a ring's nodes."""

from tests.mutants.mutants import Mutant

PACE = "migration/wsm/memory/pace.c"
WORTH = "migration/wsm/memory/worth.c"
FRAME = "migration/wsm/link/frame.c"
PACK = "migration/wsm/source/pack.c"
RING = "migration/wsm/dest/ring.c"
NODE = "migration/wsm/dest/ring-node.c"
TESTS = {PACE: "test-wsm-memory", WORTH: "test-wsm-memory",
         FRAME: "test-wsm-frame", PACK: "test-wsm-frame",
         RING: "test-wsm-dest-ring", NODE: "test-wsm-dest-ring"}


def of_memory(name: str, rule: str, file: str, old: str, new: str) -> Mutant:
    """Return a mutant of @file, for the test that guards it."""
    return Mutant(TESTS[file], name, rule, file, old, new)


MEMORY = [
    of_memory("buffer-is-link", "what the kernel has is not out", PACE,
              "+ pace->queued - queued;", ";"),
    of_memory("less-than-busy", "what others' bytes took is not saved", PACE,
              "return MAX(ns, pace->busy_ns);", "return ns;"),
    of_memory("vain-to-the-end", "a try in vain ends at once", PACE,
              "pace->packets >= WSM_PACE_LEAST",
              "pace->packets >= WSM_PACE_TRIAL"),
    of_memory("hasty", "but not for the first packets alone", PACE,
              "2 * packed : packed", "packed : packed"),
    of_memory("no-longer", "what is faster is done for longer", PACE,
              "MIN(4 * pace->trials", "MIN(1 * pace->trials"),
    of_memory("no-later", "what was in vain is done later", PACE,
              "4 * pace->wait + 3", "pace->wait"),
    of_memory("idle-tries", "who waits for the link packs", PACE,
              "(ns - pace->busy_ns) * WSM_PACE_WAITS < ns", "true"),
    of_memory("one-wrong-more", "so many wrong pages end a kind", WORTH,
              "w->wrong >= WSM_WORTH_WRONG", "w->wrong > WSM_WORTH_WRONG"),
    of_memory("one-missed-less", "and more missed than so many", WORTH,
              "w->missed > WSM_WORTH_MISSED", "w->missed >= WSM_WORTH_MISSED"),
    of_memory("missed-for-ever", "of those lately", WORTH,
              "        w->missed /= 2;\n", ""),
    of_memory("slow-unknown", "no link that is not known is faster", WORTH,
              "page_ns && w->ns > page_ns * w->refs",
              "w->ns > page_ns * w->refs"),
    of_memory("rate-adds-up", "a rate is of its time", WORTH,
              "        r->bytes = 0;\n", ""),
    of_memory("short-frame", "a frame has all that it is for", FRAME,
              "ret == out_size;", "true;"),
    of_memory("saves-nothing", "what saves too little goes as it is", FRAME,
              "size - WSM_FRAME_SAVES(size), in", "2 * size, in"),
    of_memory("packs-little", "small requests are not packed", PACK,
              "bytes < WSM_PACK_LEAST || !", "!"),
    of_memory("never-again", "what became smaller is tried again", PACK,
              "p->skips = smaller ? 0 : ", "p->skips = "),
    of_memory("skips-for-ever", "and what did not, later", PACK,
              "        p->skip--;\n", ""),
    of_memory("repairs-wrong", "only true pages are put", RING,
              "|| !wsm_dest_ring_is_true(hash, page)",
              "|| (wsm_dest_ring_is_true(hash, page), false)"),
    of_memory("repairs-always", "only if that is wanted", RING,
              "!ring->spec->repair ||", ""),
    of_memory("idle-end-is-death", "who is idle may be restarted", NODE,
              "!node->up || !QSIMPLEQ_EMPTY(&node->sent)", "true"),
    of_memory("no-timer", "a node has so much time", NODE,
              "        timer_mod(node->timer, batch->began + "
              "WSM_RING_NODE_MS);\n", "        ;\n"),
    of_memory("asks-the-dead", "a dead node is not asked", NODE,
              "if (node->over || wsm_ring_node_is_dead(node)) {",
              "if (node->over) {"),
    of_memory("old-answer", "an answer is of one connection", NODE,
              "    wsm_ring_parser_init(&node->parser);\n", ""),
    of_memory("asked-too-late", "a batch is sent with its end", NODE,
              "    wsm_ring_encode_end(out);\n", ""),
]
