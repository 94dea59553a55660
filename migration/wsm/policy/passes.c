/*
 * Whole-system migration: when the disks have been copied often enough
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "migration/wsm/policy/passes.h"

#define WSM_PASS_TOLERANCE      10      /* times @max_residue_ms */

double wsm_pass_left_ms(const WsmPass *p)
{
    return p->sent ? (double)p->dirty / p->sent * p->ns / SCALE_MS : 0;
}

bool wsm_pass_again(const WsmPass *p, int64_t max_residue_ms)
{
    /*
     * At the freeze, if bytes take as long and become dirty as fast as in
     * this pass: dirty + dirty * ram / sent.  After one more pass:
     * dirty * dirty / sent + dirty * ram / sent.
     */
    double now = (double)p->sent + p->ram;
    double then = (double)p->dirty + p->ram;

    double left_ms = wsm_pass_left_ms(p);

    if (p->equal > p->sent) {
        return p->dirty > 0;
    }
    return left_ms > max_residue_ms &&
           p->dirty <= MIN(p->before, p->sent) / 3 &&
           (then <= now / 2 ||
            left_ms > (double)WSM_PASS_TOLERANCE * max_residue_ms);
}
