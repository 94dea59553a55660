/*
 * Disks of the test guest: what each sector must hold, and checked I/O
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define WORDS (SECTOR_SIZE / sizeof(uint64_t))

Disk disks[MAX_DISKS];
int disk_count;
Counters counters;

static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;
static char first_error[256];   /* protected by error_lock */

uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

void disk_error(const char *fmt, ...)
{
    va_list ap;

    __atomic_fetch_add(&counters.errors, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&error_lock);
    if (!first_error[0]) {
        va_start(ap, fmt);
        vsnprintf(first_error, sizeof(first_error), fmt, ap);
        va_end(ap);
        printf("workload: %s\n", first_error);
    }
    pthread_mutex_unlock(&error_lock);
}

void disk_first_error(char *text, size_t size)
{
    pthread_mutex_lock(&error_lock);
    snprintf(text, size, "%s", first_error);
    pthread_mutex_unlock(&error_lock);
}

static void *alloc_lazily(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        abort();
    }
    return p;
}

void *disk_buffer_new(void)
{
    return alloc_lazily(MAX_IO_SECTORS * SECTOR_SIZE);
}

static bool disk_open_one(Disk *d, int id)
{
    char path[] = "/dev/vda";
    uint64_t bytes;

    path[sizeof(path) - 2] += id;
    d->id = id;
    d->fd = open(path, O_RDWR | O_DIRECT);
    if (d->fd < 0) {
        d->fd = open(path, O_RDONLY | O_DIRECT);
        d->read_only = true;
    }
    if (d->fd < 0 || ioctl(d->fd, BLKGETSIZE64, &bytes) < 0) {
        return false;
    }
    d->sectors = bytes / SECTOR_SIZE;
    d->versions = alloc_lazily(d->sectors * sizeof(*d->versions));
    d->busy = alloc_lazily((d->sectors / 64 + 1) * sizeof(*d->busy));
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->released, NULL);
    return true;
}

int disks_open(void)
{
    while (disk_count < MAX_DISKS &&
           disk_open_one(&disks[disk_count], disk_count)) {
        disk_count++;
    }
    return disk_count;
}

static bool range_busy(Disk *d, uint64_t sector, uint64_t count)
{
    for (uint64_t i = sector; i < sector + count; i++) {
        if (d->busy[i / 64] & (1ull << (i % 64))) {
            return true;
        }
    }
    return false;
}

static void range_mark(Disk *d, uint64_t sector, uint64_t count, bool busy)
{
    for (uint64_t i = sector; i < sector + count; i++) {
        if (busy) {
            d->busy[i / 64] |= 1ull << (i % 64);
        } else {
            d->busy[i / 64] &= ~(1ull << (i % 64));
        }
    }
}

static void range_lock(Disk *d, uint64_t sector, uint64_t count)
{
    pthread_mutex_lock(&d->lock);
    while (range_busy(d, sector, count)) {
        pthread_cond_wait(&d->released, &d->lock);
    }
    range_mark(d, sector, count, true);
    pthread_mutex_unlock(&d->lock);
}

static void range_unlock(Disk *d, uint64_t sector, uint64_t count)
{
    pthread_mutex_lock(&d->lock);
    range_mark(d, sector, count, false);
    pthread_cond_broadcast(&d->released);
    pthread_mutex_unlock(&d->lock);
}

/* Word 0 is the version and the disk, word 1 the sector, the rest noise. */
static void sector_fill(uint64_t *w, int disk, uint64_t sector,
                        uint32_t version)
{
    uint64_t x;

    if (!version) {
        memset(w, 0, SECTOR_SIZE);
        return;
    }
    w[0] = version | (uint64_t)disk << 32 | 0x57534dull << 40;
    w[1] = sector;
    x = (w[0] ^ sector * 0x9e3779b97f4a7c15ull) | 1;
    for (size_t i = 2; i < WORDS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        w[i] = x;
    }
}

static bool sector_is(const uint64_t *got, int disk, uint64_t sector,
                      uint32_t version)
{
    uint64_t want[WORDS];

    sector_fill(want, disk, sector, version);
    return memcmp(got, want, SECTOR_SIZE) == 0;
}

static bool sector_ok(const uint64_t *got, int disk, uint64_t sector,
                      uint32_t version)
{
    uint32_t found = got[0];

    if (version & VERSION_DISCARDED) {
        return found <= (version & VERSION_NUMBER) &&
               sector_is(got, disk, sector, found);
    }
    return sector_is(got, disk, sector,
                     version & VERSION_ZEROED ? 0 : version);
}

static void describe(const uint64_t *w, char *text, size_t size)
{
    int disk = (w[0] >> 32) & 0xff;
    uint32_t version = w[0];

    if (sector_is(w, 0, 0, 0)) {
        snprintf(text, size, "zeroes");
    } else if (sector_is(w, disk, w[1], version)) {
        snprintf(text, size, "disk %d sector %llu version %u", disk,
                 (unsigned long long)w[1], version);
    } else {
        snprintf(text, size, "torn or foreign data %016llx %016llx",
                 (unsigned long long)w[0], (unsigned long long)w[1]);
    }
}

static void raise_worst(uint64_t *worst, uint64_t since_ns)
{
    uint64_t us = (now_ns() - since_ns) / 1000;
    uint64_t old = __atomic_load_n(worst, __ATOMIC_RELAXED);

    while (us > old &&
           !__atomic_compare_exchange_n(worst, &old, us, false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

static void io_failed(Disk *d, const char *op, uint64_t sector,
                      uint64_t count, int err)
{
    disk_error("%s failed: disk %d sector %llu+%llu: %s", op, d->id,
               (unsigned long long)sector, (unsigned long long)count,
               err ? strerror(err) : "short transfer");
}

/* @version 0: of each sector one more than the last */
static bool write_sectors(Disk *d, uint64_t sector, uint64_t count,
                          uint32_t version, void *buf)
{
    uint64_t start = now_ns();
    ssize_t bytes = count * SECTOR_SIZE;
    ssize_t ret;

    range_lock(d, sector, count);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t *last = &d->versions[sector + i];

        *last = version ?: (*last & VERSION_NUMBER) + 1;
        sector_fill((uint64_t *)buf + i * WORDS, d->id, sector + i, *last);
    }
    ret = pwrite(d->fd, buf, bytes, sector * SECTOR_SIZE);
    if (ret != bytes) {
        io_failed(d, "write", sector, count, ret < 0 ? errno : 0);
    }
    range_unlock(d, sector, count);
    raise_worst(&counters.worst_write_us, start);
    __atomic_fetch_add(&counters.writes, 1, __ATOMIC_RELAXED);
    return ret == bytes;
}

bool disk_write(Disk *d, uint64_t sector, uint64_t count, void *buf)
{
    return write_sectors(d, sector, count, 0, buf);
}

bool disk_write_version(Disk *d, uint64_t sector, uint64_t count,
                        uint32_t version, void *buf)
{
    return write_sectors(d, sector, count, version, buf);
}

bool disk_check(Disk *d, uint64_t sector, uint64_t count, void *buf)
{
    uint64_t start = now_ns();
    ssize_t bytes = count * SECTOR_SIZE;
    bool ok = true;
    ssize_t ret;

    range_lock(d, sector, count);
    ret = pread(d->fd, buf, bytes, sector * SECTOR_SIZE);
    if (ret != bytes) {
        io_failed(d, "read", sector, count, ret < 0 ? errno : 0);
        ok = false;
    }
    for (uint64_t i = 0; ok && i < count; i++) {
        const uint64_t *got = (const uint64_t *)buf + i * WORDS;
        uint32_t want = d->versions[sector + i];
        char text[96];

        if (!sector_ok(got, d->id, sector + i, want)) {
            describe(got, text, sizeof(text));
            disk_error("bad disk %d sector %llu: want version %u%s, got %s",
                       d->id, (unsigned long long)(sector + i),
                       want & VERSION_NUMBER,
                       want & VERSION_DISCARDED ? " discarded" :
                       want & VERSION_ZEROED ? " zeroed" : "", text);
            ok = false;
        }
    }
    range_unlock(d, sector, count);
    raise_worst(&counters.worst_read_us, start);
    __atomic_fetch_add(&counters.reads, 1, __ATOMIC_RELAXED);
    return ok;
}

bool disk_discard(Disk *d, uint64_t sector, uint64_t count)
{
    uint64_t range[2] = { sector * SECTOR_SIZE, count * SECTOR_SIZE };
    int ret;

    range_lock(d, sector, count);
    for (uint64_t i = 0; i < count; i++) {
        d->versions[sector + i] |= VERSION_DISCARDED;
    }
    ret = ioctl(d->fd, BLKDISCARD, range);
    if (ret < 0) {
        io_failed(d, "discard", sector, count, errno);
    }
    range_unlock(d, sector, count);
    __atomic_fetch_add(&counters.discards, 1, __ATOMIC_RELAXED);
    return ret == 0;
}

bool disk_zero(Disk *d, uint64_t sector, uint64_t count, bool unmap)
{
    uint64_t range[2] = { sector * SECTOR_SIZE, count * SECTOR_SIZE };
    int ret;

    range_lock(d, sector, count);
    for (uint64_t i = 0; i < count; i++) {
        d->versions[sector + i] &= VERSION_NUMBER;
        d->versions[sector + i] |= VERSION_ZEROED;
    }
    if (unmap) {
        ret = fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        range[0], range[1]);
    } else {
        ret = ioctl(d->fd, BLKZEROOUT, range);
    }
    if (ret < 0) {
        io_failed(d, "zero", sector, count, errno);
    }
    range_unlock(d, sector, count);
    __atomic_fetch_add(&counters.discards, 1, __ATOMIC_RELAXED);
    return ret == 0;
}

bool disk_flush(Disk *d)
{
    uint64_t start = now_ns();

    if (fdatasync(d->fd) < 0) {
        io_failed(d, "flush", 0, 0, errno);
        return false;
    }
    raise_worst(&counters.worst_flush_us, start);
    __atomic_fetch_add(&counters.flushes, 1, __ATOMIC_RELAXED);
    return true;
}
