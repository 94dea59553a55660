/*
 * Whole-system migration: when the disks have been copied often enough
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_POLICY_PASSES_H
#define MIGRATION_WSM_POLICY_PASSES_H

/* A pass over the disks that is over.  All but @ns: bytes. */
typedef struct WsmPass {
    int64_t before;             /* dirty when it began; INT64_MAX: no matter */
    int64_t sent;
    int64_t equal;              /* compared, and need not be sent */
    int64_t ns;                 /* what that took */
    int64_t dirty;              /* when it was over */
    int64_t ram;                /* memory that is sent after the disks */
} WsmPass;

/* How long what is left would take, ms */
double wsm_pass_left_ms(const WsmPass *p);

/*
 * Is one more pass worth its time, before memory is sent?  Not if what is left
 * takes no more than @max_residue_ms, and not if it makes no great difference
 * to how much will be missing after the freeze:
 *
 * - What is dirty no longer shrinks to less than a third.  Then the guest
 *   dirties blocks about as fast as they can be sent.  (Of what is dirtied
 *   evenly as fast as it is sent, a pass leaves 37 % dirty: what it sent first
 *   had more time to become dirty.)
 * - While memory is sent, the guest dirties so much that one more pass would
 *   not even halve the sum.  Not so if what is left takes ten times as long as
 *   @max_residue_ms: post-copy would be long, and much of @ram may be pages
 *   of zeroes, which take no time.
 *
 * A pass that compared more than it sent says nothing about the time to send
 * what is left; so one that only sends follows, if anything is left.
 *
 * A block that is still dirty then is sent once, in post-copy; one that is sent
 * in a pass may become dirty again.
 */
bool wsm_pass_again(const WsmPass *p, int64_t max_residue_ms);

#endif
