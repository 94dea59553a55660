/*
 * Whole-system migration: a refusal for a source without the capability
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "migration/wsm/link/refusal.h"
#include "migration/wsm/wire/message.h"

#define WSM_REFUSAL_HEADER      4       /* type and length */

void coroutine_fn wsm_refusal_send(QIOChannel *ioc, const char *reason)
{
    size_t length = MIN(strlen(reason), WSM_MAX_TEXT);
    char buf[WSM_REFUSAL_HEADER + WSM_MAX_TEXT];

    stw_be_p(buf, WSM_REFUSAL_TYPE);
    stw_be_p(buf + 2, length);
    memcpy(buf + WSM_REFUSAL_HEADER, reason, length);
    /* At once: of several records of TLS the last may be lost */
    qio_channel_write_all(ioc, buf, WSM_REFUSAL_HEADER + length, NULL);
}

char *wsm_refusal_text(uint16_t type, const void *buf, size_t length)
{
    return type == WSM_REFUSAL_TYPE && length <= WSM_MAX_TEXT
           ? wsm_text_decode(buf, length) : NULL;
}

char *wsm_refusal_look(QIOChannel *ioc)
{
    uint8_t buf[WSM_REFUSAL_HEADER + WSM_MAX_TEXT];
    size_t have = 0, length;
    ssize_t n;

    qio_channel_set_blocking(ioc, false, NULL);
    while (have < sizeof(buf) &&
           (n = qio_channel_read(ioc, (char *)buf + have, sizeof(buf) - have,
                                 NULL)) > 0) {
        have += n;
    }
    if (have < WSM_REFUSAL_HEADER) {
        return NULL;
    }
    length = lduw_be_p(buf + 2);
    return length <= have - WSM_REFUSAL_HEADER
           ? wsm_refusal_text(lduw_be_p(buf), buf + WSM_REFUSAL_HEADER, length)
           : NULL;
}
