/*
 * Load of the test guest: threads that write, read, discard and dirty RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "work.h"
#include "disk.h"
#include "rounds.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 32
#define MAX_BURST_NS 100000000ull
#define PAGE 4096

/* What "start" may set; rates are per second and per group, 0 = unlimited */
typedef struct Load {
    long writers;       /* threads that change the disks */
    long rate;
    long readers;       /* threads that read and check */
    long rrate;
    long rblocks;       /* read whole blocks, so many; 0: 1..64 sectors */
    long seq;           /* writers go through the region instead of hopping */
    long flush;         /* flush after that many writes of a thread, 0: never */
    long full;          /* weights: whole 4 KiB blocks */
    long part;          /*          1..7 sectors inside a block */
    long big;           /*          unaligned, up to 64 KiB */
    long discard;       /*          unaligned, up to 128 KiB */
    long zero;          /*          write zeroes or punch, likewise */
    long disk;          /* only this disk, -1: all that are writable */
    long mem;           /* MiB of RAM to fill with noise and to dirty */
    long mrate;         /* pages dirtied per second */
    long fpu;           /* not 0: keep an SSE register, when all else idles */
    long rounds;        /* writes in each round, see rounds.h; 0: no rounds */
    long seed;          /* of rounds */
    long pace;          /* rounds per second */
} Load;

typedef struct Worker Worker;

struct Worker {
    pthread_t thread;
    Load load;
    long rate;          /* of this thread */
    uint64_t next_ns;   /* when the next operation is due */
    uint64_t cursor;
    uint64_t random;
    void *buf;
};

static pthread_mutex_t work_lock = PTHREAD_MUTEX_INITIALIZER;
static Worker *workers[MAX_THREADS];    /* protected by work_lock */
static int worker_count;                /* protected by work_lock */
static bool stopping;                   /* atomic */
static Region regions[MAX_DISKS];       /* changed only while nothing runs */
static uint8_t *memory;     /* once mapped, it stays; set under work_lock */
static size_t memory_size;

static uint64_t next_random(Worker *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

/* Waits until the next operation is due; false when the load shall stop. */
static bool worker_pace(Worker *w)
{
    uint64_t now = now_ns();
    struct timespec ts;

    if (__atomic_load_n(&stopping, __ATOMIC_RELAXED)) {
        return false;
    }
    if (!w->rate) {
        return true;
    }
    if (w->next_ns + MAX_BURST_NS < now) {
        w->next_ns = now;
    }
    if (w->next_ns > now) {
        ts.tv_sec = w->next_ns / 1000000000;
        ts.tv_nsec = w->next_ns % 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
    }
    w->next_ns += 1000000000 / w->rate;
    return !__atomic_load_n(&stopping, __ATOMIC_RELAXED);
}

static Disk *pick_disk(Worker *w, bool writable)
{
    Disk *d;

    if (w->load.disk >= 0) {
        return &disks[w->load.disk % disk_count];
    }
    do {
        d = &disks[next_random(w) % disk_count];
    } while (writable && d->read_only);
    return d;
}

/* A place for up to @count sectors, cut at the end of the region */
static uint64_t pick_place(Worker *w, Disk *d, uint64_t align,
                           uint64_t *count)
{
    Region *r = &regions[d->id];
    uint64_t sector;

    sector = r->start + next_random(w) % r->count / align * align;
    if (sector + *count > r->start + r->count) {
        *count = r->start + r->count - sector;
    }
    return sector;
}

static uint64_t pick_next(Worker *w, Disk *d, uint64_t *count)
{
    Region *r = &regions[d->id];
    uint64_t sector = r->start + w->cursor % r->count;

    if (sector + *count > r->start + r->count) {
        *count = r->start + r->count - sector;
    }
    w->cursor += *count;
    return sector;
}

static void change_once(Worker *w)
{
    const Load *l = &w->load;
    Disk *d = pick_disk(w, true);
    long sum = l->full + l->part + l->big + l->discard + l->zero;
    long dice = next_random(w) % sum;
    uint64_t count = BLOCK_SECTORS;
    uint64_t sector;

    if (l->seq) {
        sector = pick_next(w, d, &count);
        disk_write(d, sector, count, w->buf);
    } else if ((dice -= l->full) < 0) {
        sector = pick_place(w, d, BLOCK_SECTORS, &count);
        disk_write(d, sector, count, w->buf);
    } else if ((dice -= l->part) < 0) {
        count = 1 + next_random(w) % (BLOCK_SECTORS - 1);
        sector = pick_place(w, d, 1, &count);
        disk_write(d, sector, count, w->buf);
    } else if ((dice -= l->big) < 0) {
        count = 1 + next_random(w) % 128;
        sector = pick_place(w, d, 1, &count);
        disk_write(d, sector, count, w->buf);
    } else if ((dice -= l->discard) < 0) {
        count = 1 + next_random(w) % 256;
        sector = pick_place(w, d, 1, &count);
        disk_discard(d, sector, count);
    } else {
        count = 1 + next_random(w) % 256;
        sector = pick_place(w, d, 1, &count);
        disk_zero(d, sector, count, next_random(w) % 2);
    }
}

static void *writer_run(void *opaque)
{
    Worker *w = opaque;
    long since_flush = 0;

    while (worker_pace(w)) {
        change_once(w);
        if (w->load.flush && ++since_flush >= w->load.flush) {
            disk_flush(pick_disk(w, true));
            since_flush = 0;
        }
    }
    return NULL;
}

static void *reader_run(void *opaque)
{
    Worker *w = opaque;

    while (worker_pace(w)) {
        Disk *d = pick_disk(w, false);
        uint64_t blocks = w->load.rblocks;
        uint64_t count = blocks ? blocks * BLOCK_SECTORS
                                : 1 + next_random(w) % 64;
        uint64_t sector = pick_place(w, d, blocks ? BLOCK_SECTORS : 1, &count);

        disk_check(d, sector, count, w->buf);
    }
    return NULL;
}

static void *memory_run(void *opaque)
{
    Worker *w = opaque;

    while (worker_pace(w)) {
        size_t page = next_random(w) % (memory_size / PAGE);

        memory[page * PAGE + next_random(w) % PAGE]++;
    }
    return NULL;
}

/* Most of the time it is this that runs, with the value in the register */
static void *fpu_run(void *opaque)
{
    struct sched_param param = {};
    uint64_t wanted[2] = { 0x0123456789abcdef, 0xfedcba9876543210 }, seen[2];

    pthread_setschedparam(pthread_self(), SCHED_IDLE, &param);
    while (!__atomic_load_n(&stopping, __ATOMIC_RELAXED)) {
        asm volatile("movdqu %1, %%xmm7\n\t"
                     "movl $10000, %%ecx\n"
                     "1:\n\t"
                     "decl %%ecx\n\t"
                     "jnz 1b\n\t"
                     "movdqu %%xmm7, %0"
                     : "=m" (seen) : "m" (wanted) : "ecx", "xmm7", "cc");
        if (memcmp(seen, wanted, sizeof(seen))) {
            disk_error("bad register: %016llx %016llx",
                       (unsigned long long)seen[0],
                       (unsigned long long)seen[1]);
        }
    }
    return NULL;
}

static void *rounds_run(void *opaque)
{
    Worker *w = opaque;

    while (worker_pace(w) &&
           rounds_next(w->load.seed, w->load.rounds, regions, w->buf)) {
    }
    return NULL;
}

static void memory_fill(Worker *w, long mib)
{
    if (!memory) {
        memory_size = mib << 20;
        memory = mmap(NULL, memory_size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (size_t i = 0; i < memory_size / 8; i++) {
            ((uint64_t *)memory)[i] = next_random(w);
        }
    }
}

static void worker_add(const Load *load, long rate, void *(*run)(void *))
{
    Worker *w;

    if (worker_count == MAX_THREADS) {
        return;
    }
    w = calloc(1, sizeof(*w));
    w->load = *load;
    w->rate = rate;
    w->random = now_ns() | 1;
    w->buf = disk_buffer_new();
    if (run == memory_run) {
        memory_fill(w, load->mem);
    }
    w->next_ns = now_ns();
    workers[worker_count++] = w;
    pthread_create(&w->thread, NULL, run, w);
}

static bool parse_load(const char *words, Load *load)
{
    const struct {
        const char *name;
        long *value;
    } keys[] = {
        { "writers", &load->writers }, { "rate", &load->rate },
        { "readers", &load->readers }, { "rrate", &load->rrate },
        { "seq", &load->seq },         { "flush", &load->flush },
        { "full", &load->full },       { "part", &load->part },
        { "big", &load->big },         { "discard", &load->discard },
        { "zero", &load->zero },       { "disk", &load->disk },
        { "rblocks", &load->rblocks },
        { "mem", &load->mem },         { "mrate", &load->mrate },
        { "fpu", &load->fpu },
        { "rounds", &load->rounds },   { "seed", &load->seed },
        { "pace", &load->pace },
    };
    char name[32];
    long value;
    int used;

    while (sscanf(words, " %31[a-z]=%ld%n", name, &value, &used) == 2) {
        size_t i;

        for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
            if (!strcmp(keys[i].name, name)) {
                *keys[i].value = value;
                break;
            }
        }
        if (i == sizeof(keys) / sizeof(keys[0])) {
            return false;
        }
        words += used;
    }
    if (load->full + load->part + load->big + load->discard + load->zero == 0) {
        load->full = 1;
    }
    return words[strspn(words, " ")] == '\0' &&
           load->rblocks <= MAX_IO_SECTORS / BLOCK_SECTORS;
}

/* The rate of one of @threads threads that share @rate */
static long share(long rate, long threads)
{
    return rate ? (rate + threads - 1) / threads : 0;
}

static void work_start(const char *words, char *answer, size_t size)
{
    Load load = { .disk = -1 };

    if (!parse_load(words, &load)) {
        snprintf(answer, size, "bad load: %s", words);
        return;
    }
    __atomic_store_n(&stopping, false, __ATOMIC_RELAXED);
    for (long i = 0; i < load.writers; i++) {
        worker_add(&load, share(load.rate, load.writers), writer_run);
    }
    for (long i = 0; i < load.readers; i++) {
        worker_add(&load, share(load.rrate, load.readers), reader_run);
    }
    if (load.mem) {
        worker_add(&load, load.mrate, memory_run);
    }
    if (load.fpu) {
        worker_add(&load, 0, fpu_run);
    }
    if (load.rounds) {
        worker_add(&load, load.pace, rounds_run);
    }
    snprintf(answer, size, "ok");
}

static void answer_error(char *answer, size_t size)
{
    char text[256];

    disk_first_error(text, sizeof(text));
    if (text[0]) {
        snprintf(answer, size, "bad %s", text);
    } else {
        snprintf(answer, size, "ok");
    }
}

static void work_stop(char *answer, size_t size)
{
    __atomic_store_n(&stopping, true, __ATOMIC_RELAXED);
    while (worker_count) {
        Worker *w = workers[--worker_count];

        pthread_join(w->thread, NULL);
        munmap(w->buf, MAX_IO_SECTORS * SECTOR_SIZE);
        free(w);
    }
    answer_error(answer, size);
}

/* Blocks of the disks that are kept in RAM; only the thread of "keep" */
typedef struct Kept Kept;

struct Kept {
    uint8_t *data;
    size_t size;
    uint64_t sum;
    Kept *next;
};

static Kept *kept;

static uint64_t sum_of(const uint8_t *data, size_t size)
{
    uint64_t sum = 0xcbf29ce484222325ull;

    for (size_t i = 0; i < size; i++) {
        sum = (sum ^ data[i]) * 0x100000001b3ull;
    }
    return sum;
}

typedef bool RangeFunc(Disk *d, uint64_t sector, uint64_t count, void *buf);

static bool for_chunks(Disk *d, const Region *r, RangeFunc *func)
{
    void *buf = disk_buffer_new();
    bool ok = true;

    for (uint64_t done = 0; ok && done < r->count; done += MAX_IO_SECTORS) {
        uint64_t left = r->count - done;

        ok = func(d, r->start + done,
                  left < MAX_IO_SECTORS ? left : MAX_IO_SECTORS, buf);
    }
    munmap(buf, MAX_IO_SECTORS * SECTOR_SIZE);
    return ok;
}

static bool do_discard(Disk *d, uint64_t sector, uint64_t count, void *buf)
{
    return disk_discard(d, sector, count);
}

static bool do_zero(Disk *d, uint64_t sector, uint64_t count, void *buf)
{
    return disk_zero(d, sector, count, false);
}

static bool do_punch(Disk *d, uint64_t sector, uint64_t count, void *buf)
{
    return disk_zero(d, sector, count, true);
}

/* As a page cache does: a block of the disk in a page of its own */
static bool do_keep(Disk *d, uint64_t sector, uint64_t count, void *buf)
{
    size_t size = count * SECTOR_SIZE;
    Kept *k = calloc(1, sizeof(*k));

    if (!disk_check(d, sector, count, buf)) {
        free(k);
        return false;
    }
    k->data = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(k->data, buf, size);
    k->size = size;
    k->sum = sum_of(k->data, size);
    k->next = kept;
    kept = k;
    return true;
}

static void work_kept(char *answer, size_t size)
{
    snprintf(answer, size, "ok");
    for (const Kept *k = kept; k; k = k->next) {
        if (sum_of(k->data, k->size) != k->sum) {
            snprintf(answer, size, "bad memory that was kept");
        }
    }
}

static void work_verify(char *answer, size_t size)
{
    uint64_t sectors = 0;

    for (int i = 0; i < disk_count; i++) {
        for_chunks(&disks[i], &regions[i], disk_check);
        sectors += regions[i].count;
    }
    answer_error(answer, size);
    if (!strcmp(answer, "ok")) {
        snprintf(answer, size, "ok %llu", (unsigned long long)sectors);
    }
}

static void work_flush(char *answer, size_t size)
{
    for (int i = 0; i < disk_count; i++) {
        if (!disks[i].read_only) {
            disk_flush(&disks[i]);
        }
    }
    answer_error(answer, size);
}

static void list_disks(char *answer, size_t size)
{
    int used = snprintf(answer, size, "%d", disk_count);

    for (int i = 0; i < disk_count; i++) {
        used += snprintf(answer + used, size - used, " %llu",
                         (unsigned long long)disks[i].sectors);
    }
}

/* Commands of the form "WORD DISK SECTOR COUNT"; false if it is none */
static bool range_command(const char *line, char *answer, size_t size)
{
    static const struct {
        const char *name;
        RangeFunc *func;
    } commands[] = {
        { "region", NULL },         { "fill", disk_write },
        { "write", disk_write },    { "check", disk_check },
        { "discard", do_discard },  { "zero", do_zero },
        { "punch", do_punch },      { "keep", do_keep },
    };
    unsigned long long start, count;
    char name[16];
    int disk;

    if (sscanf(line, "%15s %d %llu %llu", name, &disk, &start, &count) != 4) {
        return false;
    }
    if (disk < 0 || disk >= disk_count || !count ||
        start + count > disks[disk].sectors) {
        snprintf(answer, size, "bad range: %s", line);
        return true;
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        Region r = { start, count };

        if (strcmp(commands[i].name, name)) {
            continue;
        }
        if (commands[i].func) {
            for_chunks(&disks[disk], &r, commands[i].func);
        } else {
            regions[disk] = r;
        }
        answer_error(answer, size);
        return true;
    }
    return false;
}

static void whole_disk_regions(void)
{
    for (int i = 0; i < disk_count; i++) {
        if (!regions[i].count) {
            regions[i] = (Region) { 0, disks[i].sectors };
        }
    }
}

static void answer_clocksource(char *answer, size_t size)
{
    FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/"
                    "current_clocksource", "r");
    char name[32];

    if (f && fscanf(f, "%31s", name) == 1) {
        snprintf(answer, size, "ok %s", name);
    } else {
        snprintf(answer, size, "bad: sysfs has no clocksource");
    }
    if (f) {
        fclose(f);
    }
}

static void msr_command(const char *line, char *answer, size_t size)
{
    int fd = open("/dev/cpu/0/msr", O_RDWR | O_CLOEXEC);
    unsigned long number;
    uint64_t value;
    int words = sscanf(line, "%lx %" SCNx64, &number, &value);
    bool done = words == 2 ? pwrite(fd, &value, 8, number) == 8 :
                words == 1 && pread(fd, &value, 8, number) == 8;

    if (done) {
        snprintf(answer, size, "ok %" PRIx64, value);
    } else {
        snprintf(answer, size, "bad: msr %s: %s", line, strerror(errno));
    }
    close(fd);
}

void work_command(const char *line, char *answer, size_t size)
{
    whole_disk_regions();
    if (!strcmp(line, "ping")) {
        snprintf(answer, size, "pong");
    } else if (!strcmp(line, "disks")) {
        list_disks(answer, size);
    } else if (!strncmp(line, "start", 5)) {
        pthread_mutex_lock(&work_lock);
        work_start(line + 5, answer, size);
        pthread_mutex_unlock(&work_lock);
    } else if (!strcmp(line, "stop")) {
        pthread_mutex_lock(&work_lock);
        work_stop(answer, size);
        pthread_mutex_unlock(&work_lock);
    } else if (!strcmp(line, "verify")) {
        work_verify(answer, size);
    } else if (!strcmp(line, "kept")) {
        work_kept(answer, size);
    } else if (!strcmp(line, "flush")) {
        work_flush(answer, size);
    } else if (!strcmp(line, "clocksource")) {
        answer_clocksource(answer, size);
    } else if (!strncmp(line, "msr ", 4)) {
        msr_command(line + 4, answer, size);
    } else if (!strcmp(line, "error")) {
        answer_error(answer, size);
    } else if (!range_command(line, answer, size)) {
        snprintf(answer, size, "bad command: %s", line);
    }
}
