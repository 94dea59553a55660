/*
 * Whole-system migration: the sync points of an image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A sync point is a moment at which this image and one on another host were
 * equal; both hosts know it by the same id.  If both also know which blocks of
 * their own image may have changed since, these are all that can differ, and a
 * migration sends no others (incremental migration: Luo, Zhang et al., IEEE
 * Cluster 2008).
 *
 * The sync points of an image are a chain, the oldest first.  Each has a
 * dirty bitmap of the writes between it and the next one, and only that of the
 * newest is enabled: so a guest's write costs the same with one sync point as
 * with many.  What has changed since a point is the union of its bitmap and all
 * later ones.  A point at which a migration broke off has a second
 * bitmap, the rest: blocks that differed already at that moment.
 *
 * Everything here runs with the BQL, unless it says otherwise.
 */
#ifndef MIGRATION_WSM_IMAGE_POINTS_H
#define MIGRATION_WSM_IMAGE_POINTS_H

#include "block/dirty-bitmap.h"
#include "qemu/uuid.h"

/*
 * The bitmaps are named bitmaps of the block node, "wsm-NNNNNNNNNN-SIZE-UUID"
 * and "wsm-NNNNNNNNNN-SIZE-UUID-rest", where NNNNNNNNNN gives their order and
 * SIZE is that of the node in bytes: after a resize a point is of no use, as
 * nobody marked the new area as changed.  (If the disk was made smaller and
 * then as large as before, what was cut off is marked in what is held, and at
 * rest the seal tells.)  So they go when the node goes, the user sees them with
 * query-named-block-nodes, and qcow2 can store them, for which a bitmap has
 * nothing but its name.  There is no other state: whoever wants to know asks
 * the node.
 *
 * Each point needs the bitmaps after it.  So they are held: from the first look
 * at them the user's commands do not get at them, nor do jobs or exports.  What
 * is stored has a seal (image/points-store.c).
 */

/* Bitmaps belong to the node; valid until its sync points are changed */
typedef struct WsmPoint {
    QemuUUID id;
    unsigned order;             /* higher is newer; unique in an image */
    BdrvDirtyBitmap *since;     /* writes from here to the next point */
    BdrvDirtyBitmap *rest;      /* differed already at the point; or NULL */
} WsmPoint;

/*
 * The id of the sync point that a session makes for its disk number @disk: the
 * UUID of the session, with the number in its last two bytes.  So two disks
 * that changed places are not taken for what they are not.  Any thread.
 */
QemuUUID wsm_points_id(const QemuUUID *session, unsigned disk);

/* Is it the bitmap of a sync point, or a seal?  Any thread. */
bool wsm_points_is_ours(const BdrvDirtyBitmap *bitmap);

/* bdrv_merge_dirty_bitmap() for bitmaps that may be those of sync points */
bool wsm_points_merge(BdrvDirtyBitmap *dest, const BdrvDirtyBitmap *src,
                      Error **errp);

/*
 * The sync points of @bs, oldest first: elements are WsmPoint.  Free with
 * g_array_unref().  Not in it are a point with a bitmap (also the rest) that
 * is inconsistent, in use by a job, or made when @bs had another size; all
 * points older than such a one; and a "rest" without its point.
 */
GArray *wsm_points_list(BlockDriverState *bs);

/* Is there a sync point @id of @bs?  If @point is not NULL, it is filled in. */
bool wsm_points_find(BlockDriverState *bs, const QemuUUID *id,
                     WsmPoint *point);

/*
 * Now is a sync point.  Its bitmap is empty and enabled before the one of
 * the newest so far is disabled, so no write goes unseen, drained or
 * not.  @granularity in bytes, a power of 2.  If there is a point @id already
 * it is forgotten.  With @rest (not owned, of any node of this size and of
 * any granularity) its bits become those of the point's rest.
 * Returns false and sets @errp; then nothing has changed.
 */
bool wsm_points_add(BlockDriverState *bs, const QemuUUID *id,
                    uint32_t granularity, const BdrvDirtyBitmap *rest,
                    Error **errp);

/*
 * Add a point with a given @order and empty disabled bitmaps, for the caller to
 * fill: one that another host told us, or that was read from a file.  Call
 * wsm_points_enable() when all are there and writes are to be recorded.
 * Returns false and sets @errp, also if @id or @order (1 or more) is used in
 * @bs already; then nothing has changed.
 */
bool wsm_points_insert(BlockDriverState *bs, const QemuUUID *id,
                       unsigned order, uint32_t granularity, bool with_rest,
                       WsmPoint *point, Error **errp);

/*
 * Enable the bitmap of the newest point (none if it is not usable) and disable
 * all others
 */
void wsm_points_enable(BlockDriverState *bs);

/* The highest order in use, also by points not in the list; 0 if none is */
unsigned wsm_points_last_order(BlockDriverState *bs);

/*
 * Forget the point, if there is one, usable or not.  What it alone knew of
 * later writes goes to the point before it, whose bitmap is then enabled if
 * that of the point was.  If that is not possible, all older points go too.
 * A bitmap in use by a job stays.
 */
void wsm_points_forget(BlockDriverState *bs, const QemuUUID *id);

/* Forget all points that have a rest: a newer break-off replaces them */
void wsm_points_forget_interrupted(BlockDriverState *bs);

/*
 * Forget what wsm_points_list() leaves out, and the oldest until there are at
 * most @max
 */
void wsm_points_limit(BlockDriverState *bs, unsigned max);

/* Forget all, also those that wsm_points_list() leaves out */
void wsm_points_clear(BlockDriverState *bs);

/*
 * All blocks that may have changed since the point @id, or differed then: set
 * their bits in @dest, whose bits stay set otherwise.  Returns false and sets
 * @errp if there is no such point.
 */
bool wsm_points_changed(BlockDriverState *bs, const QemuUUID *id,
                        BdrvDirtyBitmap *dest, Error **errp);

/*
 * The same as a number of bytes; 0 if there is no such point.  An upper bound,
 * and at most the size of @bs: a block counts in each bitmap that has it.  To
 * be exact would take time in proportion to the size of the disk, and query-wsm
 * wants it every second.
 */
int64_t wsm_points_changed_bytes(BlockDriverState *bs, const QemuUUID *id);

/*
 * For image/points-store.h
 */

/* What the name of a seal begins with */
#define WSM_SEAL_PREFIX         "wsm-seal-"

/* Is it a seal?  Any thread. */
bool wsm_points_is_seal(const BdrvDirtyBitmap *bitmap);

/* The bitmaps of all points, a "rest" without its point, and seals */
GPtrArray *wsm_points_bitmaps(BlockDriverState *bs);

/* Remove @bitmap from the image, if it is stored there; it stays in memory */
bool wsm_points_unstore(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                        Error **errp);

/* Remove @bitmap (or NULL) from image and memory, unless it is busy */
void wsm_points_release(BlockDriverState *bs, BdrvDirtyBitmap *bitmap);

/* Forget what wsm_points_list() leaves out */
void wsm_points_forget_unusable(BlockDriverState *bs);

#endif
