/*
 * Whole-system migration: pages of memory, made smaller
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/wsm/memory/pack.h"

#ifdef CONFIG_ZSTD
#include <zstd.h>

struct WsmPacker {
    ZSTD_CStream *stream;
};

struct WsmUnpacker {
    ZSTD_DStream *stream;
};

WsmPacker *wsm_packer_new(int level, Error **errp)
{
    ZSTD_CStream *stream = ZSTD_createCStream();
    WsmPacker *packer;

    if (!stream || ZSTD_isError(ZSTD_initCStream(stream, level))) {
        ZSTD_freeCStream(stream);
        error_setg(errp, "cannot compress with zstd at level %d", level);
        return NULL;
    }
    packer = g_new(WsmPacker, 1);
    packer->stream = stream;
    return packer;
}

void wsm_packer_free(WsmPacker *packer)
{
    if (packer) {
        ZSTD_freeCStream(packer->stream);
        g_free(packer);
    }
}

size_t wsm_pack_bound(size_t size)
{
    return ZSTD_compressBound(size);
}

size_t wsm_pack(WsmPacker *packer, const void *in, size_t size, void *out,
                size_t out_size, Error **errp)
{
    ZSTD_inBuffer from = { .src = in, .size = size };
    ZSTD_outBuffer to = { .dst = out, .size = out_size };
    size_t left;

    /* With room for all it is done at once; if not, nothing more comes out */
    left = ZSTD_compressStream2(packer->stream, &to, &from, ZSTD_e_flush);
    if (ZSTD_isError(left) || left || from.pos != from.size || !to.pos) {
        error_setg(errp, "cannot compress memory: %s",
                   ZSTD_isError(left) ? ZSTD_getErrorName(left)
                                      : "there is no room for it");
        return 0;
    }
    return to.pos;
}

WsmUnpacker *wsm_unpacker_new(Error **errp)
{
    ZSTD_DStream *stream = ZSTD_createDStream();
    WsmUnpacker *unpacker;

    if (!stream || ZSTD_isError(ZSTD_initDStream(stream))) {
        ZSTD_freeDStream(stream);
        error_setg(errp, "cannot decompress with zstd");
        return NULL;
    }
    unpacker = g_new(WsmUnpacker, 1);
    unpacker->stream = stream;
    return unpacker;
}

void wsm_unpacker_free(WsmUnpacker *unpacker)
{
    if (unpacker) {
        ZSTD_freeDStream(unpacker->stream);
        g_free(unpacker);
    }
}

bool wsm_unpack(WsmUnpacker *unpacker, const void *in, size_t size, void *out,
                size_t out_size, Error **errp)
{
    ZSTD_inBuffer from = { .src = in, .size = size };
    ZSTD_outBuffer to = { .dst = out, .size = out_size };
    uint8_t more;
    ZSTD_outBuffer rest = { .dst = &more, .size = sizeof(more) };
    size_t before, ret;

    do {
        before = from.pos + to.pos;
        ret = ZSTD_decompressStream(unpacker->stream, &to, &from);
        if (ZSTD_isError(ret)) {
            error_setg(errp, "cannot decompress memory: %s",
                       ZSTD_getErrorName(ret));
            return false;
        }
    } while (from.pos + to.pos > before &&
             (from.pos < from.size || to.pos < to.size));
    /* What is left in the stream would come out in front of the next packet */
    ret = ZSTD_decompressStream(unpacker->stream, &rest, &from);
    if (ZSTD_isError(ret) || rest.pos || from.pos < from.size ||
        to.pos < to.size) {
        error_setg(errp, "%zu bytes of compressed memory are not %zu bytes",
                   size, out_size);
        return false;
    }
    return true;
}

#else

WsmPacker *wsm_packer_new(int level, Error **errp)
{
    error_setg(errp, "this QEMU was built without zstd");
    return NULL;
}

void wsm_packer_free(WsmPacker *packer)
{
    assert(!packer);
}

size_t wsm_pack_bound(size_t size)
{
    return size;
}

size_t wsm_pack(WsmPacker *packer, const void *in, size_t size, void *out,
                size_t out_size, Error **errp)
{
    g_assert_not_reached();
}

WsmUnpacker *wsm_unpacker_new(Error **errp)
{
    error_setg(errp, "this QEMU was built without zstd");
    return NULL;
}

void wsm_unpacker_free(WsmUnpacker *unpacker)
{
    assert(!unpacker);
}

bool wsm_unpack(WsmUnpacker *unpacker, const void *in, size_t size, void *out,
                size_t out_size, Error **errp)
{
    g_assert_not_reached();
}

#endif
