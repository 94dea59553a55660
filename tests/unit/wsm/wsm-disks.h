/*
 * For the tests of what is done with the images of the guest's disks: images
 * in a folder of their own, and the list of the guest's disks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_DISKS_H
#define WSM_DISKS_H

#include "block/block_int.h"
#include "migration/wsm/image/guest-disk.h"

#define DISK_SIZE (1024 * 1024)

/* Main loop, block layer, GLib's tests and the folder; cleanup removes it */
void disks_init(int *argc, char ***argv);
void disks_cleanup(void);

/* In the folder; g_free() */
char *disks_path(const char *name);

/* A new image of DISK_SIZE; its path, g_free(); @options may be NULL */
char *disks_create(const char *name, const char *format, char *options);

/*
 * Open an image for somebody who lets the node be made inactive, as a guest's
 * device does
 */
BlockBackend *disks_open(const char *path, const char *driver, int flags);

/* As disks_open(), of driver "null-co": no file of this host */
BlockBackend *disks_open_null(void);

/* The guest has disk @name now, on @blk; no longer */
void disks_plug(const char *name, BlockBackend *blk);
void disks_unplug(const char *name);

/* One sector of @blk at @offset */
void disks_write(BlockBackend *blk, int64_t offset);

bool disks_inactivate(BlockDriverState *bs);
bool disks_activate(BlockDriverState *bs, Error **errp);

/* @err has @text; free it */
void disks_error(Error *err, const char *text);

#endif
