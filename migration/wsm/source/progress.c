/*
 * Whole-system migration: how far the source is, and what is left
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "exec/target_page.h"
#include "migration/migration-stats.h"
#include "migration/ram.h"
#include "migration/wsm/source/progress.h"

int64_t wsm_source_equal(WsmSource *s)
{
    int64_t equal = 0;

    for (unsigned i = 0; i < s->ndisks; i++) {
        equal += stat64_get(&s->disk[i].equal);
    }
    return equal;
}

int64_t wsm_source_sent(WsmSource *s)
{
    int64_t sent = 0;

    for (unsigned i = 0; i < s->ndisks; i++) {
        sent += stat64_get(&s->disk[i].sent);
    }
    return sent;
}

void wsm_source_sample(WsmSource *s, WsmSample *out)
{
    out->ram = migration_transferred_bytes();
    out->data = wsm_source_sent(s);
    out->equal = wsm_source_equal(s);
    for (unsigned i = 0; i < s->ndisks; i++) {
        out->zero += stat64_get(&s->disk[i].zero);
    }
    out->dirty = wsm_work_all_dirty(s->work);
}

/*
 * What is dirty includes holes until the first pass has come by: that sends no
 * more than what is allocated.
 */
static int64_t wsm_source_disk_left(WsmSourceDisk *d)
{
    int64_t dirty = wsm_work_dirty(d->s->work, d->index);
    int64_t done = stat64_get(&d->sent) + stat64_get(&d->equal);

    if (d->allocated < 0 || (d->basis &&
                             d->basis->kind == WSM_BASIS_KIND_SYNC_POINT) ||
        done + (int64_t)stat64_get(&d->zero) >= d->size) {
        return dirty;
    }
    return MIN(dirty, MAX(d->allocated - done, d->allocated / 100));
}

/* Bytes of a line like "VmRSS:  1234 kB" */
static int64_t wsm_status_line(const char *status, const char *name)
{
    const char *line = strstr(status, name);

    return line ? g_ascii_strtoll(line + strlen(name), NULL, 10) * KiB : 0;
}

/*
 * Which part of memory has more than zeroes?  Pages that nobody has touched
 * take no time to send; all others are resident, or swapped out.
 */
static double wsm_ram_in_use(void)
{
    g_autofree char *status = NULL;
    int64_t total = ram_bytes_total(), used;

    if (!total || !g_file_get_contents("/proc/self/status", &status, NULL,
                                       NULL)) {
        return 1;
    }
    used = wsm_status_line(status, "\nVmRSS:") +
           wsm_status_line(status, "\nVmSwap:") +
           wsm_status_line(status, "\nHugetlbPages:");
    return MIN(1, (double)used / total);
}

static int64_t wsm_source_ram_left(void)
{
    int64_t left = ram_bytes_remaining();

    /* From the second look at what is dirty on, all of it was written to */
    return stat64_get(&mig_stats.dirty_sync_count) > 1
           ? left : left * wsm_ram_in_use();
}

void wsm_source_expect(WsmSource *s, WsmPhase phase, WsmExpect *e)
{
    int64_t left = 0;

    if (phase == WSM_PHASE_COMPLETED) {
        return;
    }
    for (unsigned i = 0; i < s->ndisks; i++) {
        left += wsm_source_disk_left(&s->disk[i]);
        e->disks_most += s->disk[i].allocated > 0 ? s->disk[i].allocated
                                                  : s->disk[i].size;
    }
    *(phase == WSM_PHASE_DISK_PRECOPY ? &e->disks_before
                                      : &e->disks_after) = left;
    if (phase <= WSM_PHASE_RAM_PRECOPY) {
        e->ram = wsm_source_ram_left();
        e->ram_written = (double)stat64_get(&mig_stats.dirty_pages_rate) *
                         qemu_target_page_size();
    } else {
        e->disks_after += ram_bytes_remaining();
    }
}
