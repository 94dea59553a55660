/*
 * Whole-system migration: the map of missing blocks beside an image
 *
 * A file IMAGE.wsm.map, see map/format.h for what is in it.  It is made when a
 * migration to the image begins, and written when it has come so far that the
 * image is the guest's disk; when nothing is missing it goes.  It counts only
 * together with a record of state 'incomplete' of the same migration.
 *
 * Any thread; nothing here is shared.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_MAP_FILE_H
#define MIGRATION_WSM_IMAGE_MAP_FILE_H

#include "system/block-backend.h"
#include "migration/wsm/map/load.h"

/* Bytes of a new one: 500 marks, then it is rewritten in its other half */
#define WSM_MAP_FILE_BYTES      (4 * MiB)

/* "IMAGE.wsm.map"; free with g_free() */
char *wsm_map_path(const char *image);

/*
 * A new one that says nothing, in place of one that is there: who calls this
 * has made sure that the image is no guest's disk.  It is full of zeroes that
 * are written, so that later only its content has to be synced, and durable
 * when this returns true.  @image must be a regular file; the map gets its
 * mode, and its owner if that is allowed.  Returns false and sets @errp if that
 * fails.
 */
bool wsm_map_file_create(const char *image, Error **errp);

/*
 * To be written.  Nobody else can while it is open.  Main thread with the BQL.
 * NULL, and @errp.
 */
BlockBackend *wsm_map_file_open(const char *image, Error **errp);

/*
 * Read it, see wsm_map_load().  WSM_MAP_NONE, and no @errp, if there is none;
 * WSM_MAP_DAMAGED if it cannot be read.
 */
WsmMapState wsm_map_file_load(const char *image, const WsmMapWanted *wanted,
                              WsmMapContents *out, Error **errp);

/* Durably; no error if there is none.  Returns false and sets @errp. */
bool wsm_map_file_remove(const char *image, Error **errp);

#endif
