/*
 * Whole-system migration: when a guest's memory is kept
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "exec/target_page.h"
#include "migration/migration.h"
#include "migration/wsm/kept.h"
#include "migration/wsm/memory/kept.h"

/*
 * Who ends a QEMU with a signal kills it when it takes too long, libvirt after
 * 10 s.  With a killed one a file that is not whole would be left.
 */
#define WSM_KEPT_END_MS         8000
#define WSM_KEPT_CLEANUP_NS     (2 * NANOSECONDS_PER_SECOND)

/* Beside the image of the first disk that has one in a file */
static char *wsm_kept_beside(WsmSource *s)
{
    for (unsigned i = 0; i < s->ndisks; i++) {
        const char *image = s->disk[i].image ? s->disk[i].image->file : NULL;

        if (image) {
            return wsm_kept_path(image);
        }
    }
    return NULL;
}

char *wsm_kept_file(Wsm *w)
{
    const char *file = w->options.options->keep_memory_file;
    char *path;

    GLOBAL_STATE_CODE();
    if (!wsm_option(&w->options, WSM_OPT_KEEP_MEMORY)) {
        return NULL;
    }
    path = *file ? g_strdup(file) : wsm_kept_beside(w->source);
    if (!path) {
        warn_report("The guest's memory is not kept: none of its disks is in a "
                    "file; say where with option 'keep-memory-file'");
    } else if (qemu_target_page_size() != WSM_PAGE_SIZE) {
        warn_report("The guest's memory is not kept: its pages have %zu bytes, "
                    "and not %d", qemu_target_page_size(), WSM_PAGE_SIZE);
        g_clear_pointer(&path, g_free);
    }
    return path;
}

void wsm_kept_begin(Wsm *w, const char *file, const QemuUUID *session)
{
    GLOBAL_STATE_CODE();
    if (w->keep) {
        /* Without disks of its own nothing keeps a guest from leaving twice */
        wsm_keep_free(g_steal_pointer(&w->keep));
    }
    w->keep = wsm_keep_start(file, session);
}

/* It has completed, and the main loop has yet to see that */
static bool wsm_kept_is_due(Wsm *w)
{
    return w->source && wsm_option(&w->options, WSM_OPT_KEEP_MEMORY) &&
           qatomic_read(&migrate_get_current()->state) ==
           MIGRATION_STATUS_COMPLETED;
}

void wsm_kept_end(Wsm *w)
{
    int64_t until = wsm_now() + WSM_KEPT_CLEANUP_NS;

    GLOBAL_STATE_CODE();
    while (wsm_kept_is_due(w) && wsm_now() < until) {
        main_loop_wait(true);
    }
    if (!w->keep) {
        return;
    }
    until = wsm_now() + WSM_KEPT_END_MS * (int64_t)SCALE_MS;
    while (!wsm_keep_wait(w->keep, WSM_KEPT_END_MS) && wsm_now() < until) {
        /* It was woken for nothing */
    }
    wsm_keep_free(g_steal_pointer(&w->keep));
}

void wsm_kept_forget(Wsm *w, GPtrArray *disks)
{
    for (unsigned i = 0; i < disks->len; i++) {
        WsmImage *image = wsm_image_get(&w->images,
                                        g_ptr_array_index(disks, i));
        g_autofree char *path = image->file ? wsm_kept_path(image->file)
                                            : NULL;

        if (path) {
            unlink(path);
        }
    }
}
