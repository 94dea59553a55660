/*
 * Whole-system migration: disk data, made smaller
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "migration/wsm/link/frame.h"

/* What saves less is not worth the destination's time */
#define WSM_FRAME_SAVES(size)   ((size) / 16)

#ifdef CONFIG_ZSTD
#include <zstd.h>

#define WSM_FRAME_LEVEL         1

size_t wsm_frame_pack(const void *in, size_t size, void *out)
{
    size_t ret = ZSTD_compress(out, size - WSM_FRAME_SAVES(size), in, size,
                               WSM_FRAME_LEVEL);

    return ZSTD_isError(ret) ? 0 : ret;
}

/* It takes as much memory as @out, whatever the frame says of itself */
bool wsm_frame_unpack(const void *in, size_t size, void *out, size_t out_size)
{
    size_t ret = ZSTD_decompress(out, out_size, in, size);

    return !ZSTD_isError(ret) && ret == out_size;
}

#else

size_t wsm_frame_pack(const void *in, size_t size, void *out)
{
    return 0;
}

bool wsm_frame_unpack(const void *in, size_t size, void *out, size_t out_size)
{
    return false;
}

#endif

typedef struct WsmFrameJob {
    const void *in;
    size_t size;
    void *out;
    size_t out_size;            /* to unpack; else 0 */
    size_t packed;
    bool unpacked;
} WsmFrameJob;

static int wsm_frame_job(void *opaque)
{
    WsmFrameJob *job = opaque;

    if (job->out_size) {
        job->unpacked = wsm_frame_unpack(job->in, job->size, job->out,
                                         job->out_size);
    } else {
        job->packed = wsm_frame_pack(job->in, job->size, job->out);
    }
    return 0;
}

size_t coroutine_fn wsm_co_frame_pack(const void *in, size_t size, void *out)
{
    WsmFrameJob job = { .in = in, .size = size, .out = out };

    thread_pool_submit_co(wsm_frame_job, &job);
    return job.packed;
}

bool coroutine_fn wsm_co_frame_unpack(const void *in, size_t size, void *out,
                                      size_t out_size, Error **errp)
{
    WsmFrameJob job = {
        .in = in, .size = size, .out = out, .out_size = out_size,
    };

    thread_pool_submit_co(wsm_frame_job, &job);
    if (!job.unpacked) {
        error_setg(errp, "%zu bytes of packed data are not %zu bytes", size,
                   out_size);
    }
    return job.unpacked;
}
