/*
 * Whole-system migration: what is known of the images of the guest's disks
 *
 * Ties three things together: the block node with its sync points
 * (image/points.h), the record of the image (image/record.h), and the
 * question whether a guest may run from it.
 *
 * At rest, what is known is in the image (qcow2) or in the record.  As soon as
 * the image is about to be written it is taken from there into memory, so
 * that whatever happens to QEMU nobody trusts what is out of date.  When
 * the image is at rest again it is put back.
 *
 * With the BQL, unless it says otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_IMAGE_IMAGE_H
#define MIGRATION_WSM_IMAGE_IMAGE_H

#include "qapi/qapi-types-wsm.h"
#include "qemu/uuid.h"
#include "migration/wsm/image/guest-disk.h"
#include "migration/wsm/image/map-place.h"
#include "migration/wsm/image/record-store.h"
#include "migration/wsm/map/load.h"

typedef struct WsmImage {
    char *path;                 /* of the guest device, as in WsmDisk */
    char *name;                 /* for people */
    char *node;                 /* node name */
    uint64_t device, inode;     /* of what is open; 0: no file or device */
    char *file;                 /* name of the regular file, or NULL */
    char *no_record;            /* why none can be kept; NULL: one can */
    bool told;                  /* the user was told so; atomic */
    WsmImageState state;
    bool taken;                 /* what the image and its record had is here */
    char *session;              /* of @state; NULL: not known */
    char *peer;                 /* likewise */
    int64_t time;               /* s since 1970, of @state */
    char *problem;              /* why points are not trusted, or NULL */
    char *arriving;             /* see wsm_image_is_arriving(), or NULL */
    WsmMapState map;            /* of @state, if there is any */
    int64_t missing;            /* bytes, by the map; or -1 */
    WsmMapPlace *map_place;     /* where that map is, or NULL */
    char *map_node;             /* the user wants new maps there, or NULL */
    bool map_is_there;          /* that of @state is on @map_node */
    int map_disk;               /* number in that of @state; -1: no map */
    bool joined;                /* its guest is here, what misses is coming */
} WsmImage;

/*
 * The image is about to be written: activate its node and take its points into
 * memory.  What cannot be trusted is left out, and @problem says why.  Returns
 * false and sets @errp if the node cannot be activated.
 */
bool wsm_image_take(WsmImage *image, BlockDriverState *bs, Error **errp);

/*
 * What of it is still at the other host, for people, if it is the disk of a
 * guest that has come here, and blocks were missing when QEMU ended (by the map
 * beside it): then it must not be written over.  Else NULL.
 */
const char *wsm_image_is_arriving(const WsmImage *image);

/*
 * Where a new map is to be made; for that which is there see @map_place.  NULL
 * and @errp if there can be none.
 */
WsmMapPlace *wsm_image_map_place(const WsmImage *image, Error **errp);

/* Activate a node.  Returns false and sets @errp. */
bool wsm_image_activate(BlockDriverState *bs, Error **errp);

/*
 * Now is sync point @id of @bs, see wsm_points_add(); and no more than @max
 * points are kept.  If that fails there is a warning.
 */
void wsm_image_add_point(WsmImage *image, BlockDriverState *bs,
                         const QemuUUID *id, uint32_t granularity,
                         const BdrvDirtyBitmap *rest, unsigned max);

/* Say what the image is good for from now on; @session and @peer may be NULL */
void wsm_image_set_state(WsmImage *image, WsmImageState state,
                         const QemuUUID *session, const char *peer);

/*
 * Where the record of the image is kept now; NULL if there can be none.  Free
 * it with wsm_record_store_free().
 */
WsmRecordStore *wsm_image_store(WsmImage *image, BlockDriverState *bs);

/* A record of @state without points */
WsmRecord *wsm_image_record(WsmImage *image, BlockDriverState *bs,
                            WsmImageState state, const QemuUUID *session,
                            const char *peer);

/*
 * What tells later whether the image of @bs was written to; synced, so that it
 * is the same after a power cut.  It may wait some 50 ms, see
 * wsm_record_stamp().  Returns false and sets @errp.
 */
bool wsm_image_stamp(BlockDriverState *bs, WsmFileStamp *stamp, Error **errp);

/*
 * A migration begins that makes a stale copy of @image, or an incomplete one:
 * if there can be no record of that, say so, once.
 */
void wsm_image_tell(WsmImage *image);

/* The same for one that could not be written; takes @err.  Any thread. */
void wsm_image_warn(WsmImage *image, Error *err);

/* One could not be removed although the image is current; likewise */
void wsm_image_warn_current(const char *name, Error *err);

/*
 * Write the record of an image in use: state only.  If that fails there
 * is a warning: the migration is more important.
 */
void wsm_image_mark(WsmImage *image, BlockDriverState *bs);

/*
 * The image will not be written any more (but for what its format does when
 * it is closed): put its points back.  @inactivate: not by closing it, which
 * will not happen or has happened; @bs may be active or inactive, and a qcow2
 * node is inactive after it.
 */
void wsm_image_put(WsmImage *image, BlockDriverState *bs, bool inactivate);

/*
 * Look at @disk, whose maps the user wants on @map_node unless that is NULL,
 * anew: is @image, what was known of it or NULL, still what is known?  Else a
 * new one is made, and the record is looked at, but nothing is changed.
 * Returns a reference, or NULL for @image.
 */
WsmImage *wsm_image_renew(WsmImage *image, const WsmDisk *disk,
                          const char *map_node);

WsmImage *wsm_image_ref(WsmImage *image);
void wsm_image_unref(WsmImage *image);

#endif
