/*
 * Whole-system migration: an image whose missing blocks are lost for good
 *
 * The source's disk is lost, or given up.  What the guest had flushed here is
 * still good, and which blocks are not is known from the map: the guest, its
 * file system check and its owner can be told.
 *
 * Main thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_SALVAGE_H
#define MIGRATION_WSM_IMAGE_SALVAGE_H

#include "system/block-backend.h"
#include "migration/wsm/image/image.h"

/* "IMAGE.wsm.lost"; free with g_free() */
char *wsm_salvage_list_path(const char *image);

/*
 * Write zeroes where blocks of @image are missing, durably, by @blk, which the
 * guest's device has and does not use now.  If it is a file there is a list of
 * them beside it before: a line "OFFSET BYTES" for each run.  It polls.  False,
 * and @errp: some may be zeroes by then, which the map calls missing still.
 */
bool wsm_salvage_zero(const WsmImage *image, BlockBackend *blk, Error **errp);

#endif
