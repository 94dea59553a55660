/*
 * Whole-system migration: was an image changed since its record was written?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/timer.h"
#include "migration/wsm/image/record-stamp.h"

#define WAIT_MAX_NS     (50 * SCALE_MS)
#define POLL_US         200

static int64_t timespec_ns(const struct timespec *ts)
{
    return ts->tv_sec * NANOSECONDS_PER_SECOND + ts->tv_nsec;
}

static int64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    int ret = clock_gettime(id, &ts);

    assert(ret == 0);
    return timespec_ns(&ts);
}

bool wsm_record_stat(int fd, const char *image, WsmFileStamp *stamp,
                     Error **errp)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot look at '%s'", image);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        error_setg(errp, "'%s' is no regular file", image);
        return false;
    }
    *stamp = (WsmFileStamp) {
        .device = st.st_dev,
        .inode = st.st_ino,
        .size = st.st_size,
        .mtime = timespec_ns(&st.st_mtim),
        .ctime = timespec_ns(&st.st_ctim),
    };
    return true;
}

/*
 * How far the times that two writes leave may be apart and yet be equal.  The
 * kernel takes them from a clock that goes on with each tick.  Some file
 * systems keep whole seconds only, or even ones: known by the lack of
 * nanoseconds in both times, for the user cannot set ctime.
 */
static int64_t granularity_ns(const WsmFileStamp *stamp)
{
    struct timespec tick;
    int ret = clock_getres(CLOCK_REALTIME_COARSE, &tick);

    assert(ret == 0);
    if (stamp->mtime % NANOSECONDS_PER_SECOND == 0 &&
        stamp->ctime % NANOSECONDS_PER_SECOND == 0) {
        return 2 * NANOSECONDS_PER_SECOND;
    }
    return timespec_ns(&tick);
}

static void refuse_to_wait(const char *image, const WsmFileStamp *stamp,
                           Error **errp)
{
    int64_t ahead = stamp->mtime - clock_ns(CLOCK_REALTIME);

    if (ahead > 0) {
        error_setg(errp, "the time of '%s' is %" PRId64 " ms in the future; "
                   "was the clock set back?", image, ahead / SCALE_MS + 1);
    } else {
        error_setg(errp, "'%s' was written to so shortly ago that its mtime "
                   "would not show another write", image);
    }
}

bool wsm_record_stamp(int fd, const char *image, WsmFileStamp *stamp,
                      Error **errp)
{
    int64_t end = get_clock() + WAIT_MAX_NS;

    while (true) {
        /* The clock first: a write after the stat has this time or a later */
        int64_t clock = clock_ns(CLOCK_REALTIME_COARSE);
        int64_t wait;

        if (!wsm_record_stat(fd, image, stamp, errp)) {
            return false;
        }
        wait = stamp->mtime + granularity_ns(stamp) - clock;
        if (wait < 0) {
            return true;
        }
        if (get_clock() + wait > end) {
            refuse_to_wait(image, stamp, errp);
            return false;
        }
        g_usleep(wait / SCALE_US + POLL_US);
    }
}

static void compare_unsigned(GString *out, const char *what, uint64_t then,
                             uint64_t now)
{
    if (then != now) {
        g_string_append_printf(out, "; its %s was %" PRIu64 " and is %" PRIu64,
                               what, then, now);
    }
}

static void compare_time(GString *out, const char *what, int64_t then,
                         int64_t now)
{
    if (then != now) {
        g_string_append_printf(out, "; its %s was %" PRId64 " and is %" PRId64
                               " ns", what, then, now);
    }
}

bool wsm_record_unchanged(const WsmFileStamp *then, const WsmFileStamp *now,
                          Error **errp)
{
    g_autoptr(GString) differs = g_string_new(NULL);

    compare_unsigned(differs, "device", then->device, now->device);
    compare_unsigned(differs, "inode", then->inode, now->inode);
    compare_unsigned(differs, "size", then->size, now->size);
    compare_time(differs, "mtime", then->mtime, now->mtime);
    if (differs->len) {
        error_setg(errp, "the file was changed or replaced%s", differs->str);
        return false;
    }
    if (now->mtime > clock_ns(CLOCK_REALTIME)) {
        /* A write that comes at this time would leave it as it is */
        error_setg(errp, "the file's mtime, %" PRId64 " ns, is in the future; "
                   "was the clock set back?", now->mtime);
        return false;
    }
    return true;
}
