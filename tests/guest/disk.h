/*
 * Disks of the test guest: what each sector must hold, and checked I/O
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest remembers in RAM, for each 512-byte sector, the version it wrote
 * last.  The content of a sector follows from (disk, sector, version), so a
 * lost, stale, torn or misplaced sector shows when it is read back.  Version 0
 * means "zeroes": images start blank.
 */

#ifndef GUEST_DISK_H
#define GUEST_DISK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR_SIZE 512
#define BLOCK_SECTORS 8
#define MAX_DISKS 8
#define MAX_IO_SECTORS 512

/*
 * Flags in an entry of Disk.versions.  The number below them never goes back,
 * so that content from before a zeroing or a discard can be told from new.
 */
#define VERSION_DISCARDED (1u << 31)    /* zeroes, or any earlier version */
#define VERSION_ZEROED    (1u << 30)    /* zeroes */
#define VERSION_NUMBER    (VERSION_ZEROED - 1)
#define VERSION_ROUND     (1u << 28)    /* round n writes this + n */

typedef struct Disk {
    /* set in disks_open(), never changed */
    int id;
    int fd;
    uint64_t sectors;
    bool read_only;

    /* one entry per sector; an entry belongs to who holds its range lock */
    uint32_t *versions;

    /* one bit per sector, protected by @lock: the range locks */
    uint64_t *busy;
    pthread_mutex_t lock;
    pthread_cond_t released;
} Disk;

/* Protected by being atomic; shown in each heartbeat */
typedef struct Counters {
    uint64_t writes;
    uint64_t reads;
    uint64_t discards;
    uint64_t flushes;
    uint64_t errors;
    uint64_t rounds;            /* the last that is flushed, see rounds.h */
    uint64_t worst_write_us;    /* since the last heartbeat */
    uint64_t worst_read_us;     /* since the last heartbeat */
    uint64_t worst_flush_us;    /* since the last heartbeat */
} Counters;

extern Disk disks[MAX_DISKS];
extern int disk_count;
extern Counters counters;

/* Opens /dev/vda, /dev/vdb, ...; returns the number of disks. */
int disks_open(void);

/*
 * All functions below work on @count sectors (at most MAX_IO_SECTORS, except
 * for discard and zero) from @sector on, take the range lock, may block, and
 * return false after they recorded an error with disk_error().  @buf is a
 * buffer of the caller's own of MAX_IO_SECTORS sectors, aligned for O_DIRECT.
 */
bool disk_write(Disk *d, uint64_t sector, uint64_t count, void *buf);
bool disk_write_version(Disk *d, uint64_t sector, uint64_t count,
                        uint32_t version, void *buf);
bool disk_check(Disk *d, uint64_t sector, uint64_t count, void *buf);
bool disk_discard(Disk *d, uint64_t sector, uint64_t count);
bool disk_zero(Disk *d, uint64_t sector, uint64_t count, bool unmap);
bool disk_flush(Disk *d);

void *disk_buffer_new(void);

/* Text of the first error, or "" */
void disk_first_error(char *text, size_t size);

/* Counts an error, and keeps the text if it is the first */
void __attribute__((format(printf, 1, 2))) disk_error(const char *fmt, ...);

uint64_t now_ns(void);

#endif
