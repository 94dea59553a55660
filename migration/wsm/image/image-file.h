/*
 * Whole-system migration: the file that has the data of a disk
 *
 * Main thread with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_IMAGE_FILE_H
#define MIGRATION_WSM_IMAGE_IMAGE_FILE_H

#include "block/block-common.h"
#include "migration/wsm/image/record-store.h"

/*
 * The node with a file descriptor that has the data of @bs, be it a regular
 * file or a device.  NULL and @errp if there is none, or the image has its data
 * in more than one place.
 */
BlockDriverState *wsm_image_file_node(BlockDriverState *bs, Error **errp);

/*
 * The format of the image, as qemu-img calls it; of several that are one in the
 * other the outermost comes last: "qcow2 in luks".  Free with g_free().
 */
char *wsm_image_format(BlockDriverState *bs);

/*
 * The name of the regular file of @node (as above), absolute and without
 * links.  It is found by what is open, for the name that QEMU was given may
 * lead elsewhere by now: QEMU changes its working directory when it becomes a
 * daemon, /dev/fdset is no name at all, and files are renamed.  Returns NULL
 * and sets @errp if there is no such name; else free with g_free().
 */
char *wsm_image_file_name(BlockDriverState *node, Error **errp);

/*
 * Where the record of the image is kept, whose data is in @node (as above).
 * Returns NULL and sets @errp if there can be none; else free with
 * wsm_record_store_free().
 */
WsmRecordStore *wsm_image_file_store(BlockDriverState *node, Error **errp);

/*
 * Has @bs data in a file of its own beside its metadata, as qcow2 has with
 * "data-file"?  What others write there neither the metadata nor the times of
 * the metadata's file tell.
 */
bool wsm_image_has_data_file(BlockDriverState *bs);

/* Is all that is flushed durable, or is the user's wish another one? */
bool wsm_image_is_flushed(BlockDriverState *bs);

#endif
