/*
 * Whole-system migration: when a guest's memory is kept
 *
 * Main thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_KEPT_H
#define MIGRATION_WSM_KEPT_H

#include "migration/wsm/state.h"

/*
 * The guest is about to be elsewhere for good: where its memory is to be kept,
 * or NULL.  Free with g_free().
 */
char *wsm_kept_file(Wsm *w);

/* And it is: keep it there */
void wsm_kept_begin(Wsm *w, const char *file, const QemuUUID *session);

/* QEMU ends.  Wait for it for some seconds, then give up. */
void wsm_kept_end(Wsm *w);

/* The guest starts from these disks, WsmDisk *: what is beside them is old */
void wsm_kept_forget(Wsm *w, GPtrArray *disks);

#endif
