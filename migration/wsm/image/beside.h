/*
 * Whole-system migration: files beside an image
 *
 * What they have in common: they are ours, new ones are made as such, whoever
 * may use the image may use them, and their names are durable.
 *
 * Any thread; nothing here is shared.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_BESIDE_H
#define MIGRATION_WSM_IMAGE_BESIDE_H

#include <sys/stat.h>

/* Does this errno mean that there is no file?  (With too long a name, too.) */
bool wsm_beside_is_absent(int error);

/*
 * The folder of @path, to be synced.  If it cannot be opened, better know that
 * before anything is changed.  Close it.  -1, and @errp.
 */
int wsm_beside_open_folder(const char *path, Error **errp);
bool wsm_beside_sync_folder(int fd, const char *path, Error **errp);

/*
 * A new file to write to, and to read from, never one that somebody has put
 * there.  Close it.  -1, and @errp.
 */
int wsm_beside_create(const char *path, Error **errp);

/* Write @buf to @fd, which has the name @path, durably.  False, and @errp. */
bool wsm_beside_write(int fd, const char *path, const void *buf, size_t size,
                      Error **errp);

/* Write @fd, which has the name @path for now.  False, and @errp. */
typedef bool WsmBesideFn(void *opaque, int fd, const char *path,
                         Error **errp);

/*
 * Let @path have a new content, as a whole: @fill writes a new file, which is
 * then renamed to it.  Whether anything is synced is up to @fill and the
 * caller.  False, and @errp: @path is as before, and nothing else is left.
 */
bool wsm_beside_replace(const char *path, WsmBesideFn *fill, void *opaque,
                        Error **errp);

/* The status of @image, a regular file.  False, and @errp, if it is none. */
bool wsm_beside_stat_image(const char *image, const char *what,
                           struct stat *st, Error **errp);

/*
 * Mode and owner as the image.  Only root can set another owner; where that
 * fails the file is its writer's, who runs the guest.  False, and @errp.
 */
bool wsm_beside_copy_access(int fd, const char *path, const struct stat *image,
                            Error **errp);

/* Durably; no error if there is none.  False, and @errp. */
bool wsm_beside_remove(const char *path, Error **errp);

#endif
