/*
 * Whole-system migration: the guest's memory is gone through, for templates
 *
 * In a thread of its own, that copies a few pages at a time and needs no lock
 * that anybody waits for: the guest and the monitor run on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_SCAN_H
#define MIGRATION_WSM_SCAN_H

#include "migration/wsm/memory/scan-file.h"

typedef struct WsmScan WsmScan;

/*
 * Begin to write to @fd, which becomes the scan's.  Those pages that @wanted
 * has, which becomes the scan's as well; NULL: a digest.  @bandwidth in bytes
 * per second, 0: as fast as it can.  Main thread.
 */
WsmScan *wsm_scan_start(int fd, WsmPrefixes *wanted, uint64_t bandwidth);

/* Cancel it if it runs, and wait for its end.  Main thread. */
void wsm_scan_free(WsmScan *scan);

/* It is to end soon.  Main thread. */
void wsm_scan_cancel(WsmScan *scan);

bool wsm_scan_runs(WsmScan *scan);

/* Its state.  Main thread. */
WsmScanInfo *wsm_scan_info(WsmScan *scan);

#endif
