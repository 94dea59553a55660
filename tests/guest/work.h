/*
 * Load of the test guest: threads that write, read, discard and dirty RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_WORK_H
#define GUEST_WORK_H

#include <stddef.h>

/*
 * Runs one command line and puts the answer into @answer.  Called from any
 * thread, several at once; may block as long as the disks do.  Commands:
 *
 *   ping                       "pong"
 *   disks                      "N SECTORS SECTORS ..."
 *   region DISK SECTOR COUNT   limits load and verify to this part of a disk
 *   fill DISK SECTOR COUNT     writes the range once; "ok"
 *   start KEY=VALUE ...        starts threads; see Load in work.c; "ok"
 *   stop                       stops all threads; "ok" or "bad TEXT"
 *   verify                     reads all regions; "ok SECTORS" or "bad TEXT"
 *   check DISK SECTOR COUNT    reads one range; "ok" or "bad TEXT"
 *   write|discard|zero|punch DISK SECTOR COUNT    one request; "ok"/"bad TEXT"
 *   keep DISK SECTOR COUNT     reads and checks one range, and keeps it in RAM
 *   kept                       checks what is kept; "ok" or "bad TEXT"
 *   flush                      flushes all disks; "ok" or "bad TEXT"
 *   clocksource                "ok NAME" of what the guest reads the time from
 *   msr NUMBER [VALUE]         reads or writes this register of the first CPU;
 *                              all in hex; "ok VALUE" or "bad TEXT"
 *   error                      "ok", or "bad TEXT" of the first error
 */
void work_command(const char *line, char *answer, size_t size);

#endif
