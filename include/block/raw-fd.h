/*
 * The file behind a block node
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_RAW_FD_H
#define BLOCK_RAW_FD_H

/*
 * The file descriptor of a node of driver "file", "host_device" or
 * "host_cdrom", to look at and not to keep: the node may be reopened with
 * another one.  -1 if @bs is of another driver.  Main thread with the BQL.
 */
int bdrv_raw_fd(const BlockDriverState *bs);

#endif
