/*
 * The test guest's link to the outside: heartbeats, commands and answers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Raw Ethernet frames with the local experimental type, so that neither side
 * needs addresses, and whoever runs the guest at the moment is heard.
 * The payload, in the guest's byte order (little endian):
 *
 *   heartbeat   u32 1, u32 0, LinkHeartbeat
 *   command     u32 2, u32 length, u64 id, text
 *   answer      u32 3, u32 length, u64 id, text
 *
 * Frames may be lost: the host repeats a command with the same id until it is
 * answered; the guest runs each id once and repeats its answer.
 */

#ifndef GUEST_LINK_H
#define GUEST_LINK_H

#include <stdint.h>

#define LINK_ETHERTYPE 0x88b5
/* "beat_ms=N" on the kernel's line is another, for where this is too often */
#define LINK_HEARTBEAT_MS 5
#define LINK_TEXT_MAX 1024

enum {
    LINK_HEARTBEAT = 1,
    LINK_COMMAND = 2,
    LINK_ANSWER = 3,
};

typedef struct LinkHeartbeat {
    uint64_t sequence;
    uint64_t guest_ns;
    uint64_t writes;
    uint64_t reads;
    uint64_t discards;
    uint64_t flushes;
    uint64_t errors;
    uint64_t worst_write_us;
    uint64_t worst_read_us;
    uint64_t rounds;
    uint64_t worst_flush_us;
} LinkHeartbeat;

/* Serves the link for ever; returns only if eth0 cannot be used. */
void link_serve(void);

#endif
