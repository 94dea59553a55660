/*
 * Whole-system migration: what the migration of a disk builds on
 *
 * Pure: the destination's choice from what both sides know.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_POLICY_BASIS_H
#define MIGRATION_WSM_POLICY_BASIS_H

#include "qapi/qapi-types-wsm.h"
#include "migration/wsm/wire/message.h"
#include "migration/wsm/wire/start.h"

typedef struct WsmBasisInput {
    WsmBasisKind wish;              /* of the source's user */
    bool blank;                     /* our image reads as zeroes */
    const char *problem;            /* why our points are lost, or NULL */
    const WsmPointDesc *theirs;     /* the source's points */
    unsigned ntheirs;
    const WsmPointDesc *ours;
    unsigned nours;
} WsmBasisInput;

/*
 * A sync point that both sides know is best: of several the one since which
 * fewest bytes were written on both sides.  With none, there is no use in
 * comparing if our image is blank, and else the content is compared.
 * Returns NULL and sets @errp if the wish cannot be fulfilled.
 */
WsmBasis *wsm_basis_choose(const WsmBasisInput *in, Error **errp);

#endif
