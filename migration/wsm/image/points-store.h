/*
 * Whole-system migration: sync points in an image at rest
 *
 * Main thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_POINTS_STORE_H
#define MIGRATION_WSM_IMAGE_POINTS_STORE_H

#include "migration/wsm/image/points.h"

/*
 * qcow2 can store the points in the image when it is closed or inactivated.
 * Has @bs this ability?
 */
bool wsm_points_can_persist(BlockDriverState *bs);

/*
 * Store them when @bs is closed or inactivated next.  Does nothing if @bs
 * cannot; those that qcow2's limits do not allow are left out, with all older
 * ones.  To be called when nobody writes any more.
 */
void wsm_points_persist(BlockDriverState *bs);

/*
 * The image is about to be written: remove what is stored in it, so that nobody
 * trusts it if QEMU crashes.  In memory the points stay, except for those that
 * wsm_points_list() leaves out.  Returns false and sets @errp if what is stored
 * was tampered with, and then nothing is removed; on I/O errors; and if @bs is
 * read-only or inactive; then some may be removed.
 */
bool wsm_points_unpersist(BlockDriverState *bs, Error **errp);

/*
 * Put a seal on the stored points, which the image keeps with them.  Returns
 * false if that is not possible; then they must not be stored.
 */
bool wsm_points_seal(BlockDriverState *bs);

/*
 * Are the stored points, if there are any, those of the seal?  Returns false
 * and sets @errp if not.
 */
bool wsm_points_check_seal(BlockDriverState *bs, Error **errp);

/* Forget all seals */
void wsm_points_unseal(BlockDriverState *bs);

#endif
