/*
 * Whole-system migration: a refusal for a source without the capability
 *
 * It opens no block channels, on which it could be told why the guest cannot
 * come.  So that is said on the main stream: as a message of QEMU's return
 * path, of a type that QEMU does not have.  A source that has no return path
 * does not read, but may look when the stream has broken; without TLS, as that
 * does not say much when it is broken.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_LINK_REFUSAL_H
#define MIGRATION_WSM_LINK_REFUSAL_H

#include "io/channel.h"

#define WSM_REFUSAL_TYPE        0x5753  /* "WS" */

/* Coroutine */
void coroutine_fn wsm_refusal_send(QIOChannel *ioc, const char *reason);

/*
 * If a message of @type is a refusal, return the text that its payload @buf of
 * @length bytes has, as a new string; else NULL.
 */
char *wsm_refusal_text(uint16_t type, const void *buf, size_t length);

/*
 * Has a refusal come on @ioc, which has broken?  Does not wait for one, and
 * makes @ioc such that nobody waits any more.  Returns a new string or NULL.
 */
char *wsm_refusal_look(QIOChannel *ioc);

#endif
