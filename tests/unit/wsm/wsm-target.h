/*
 * For unit tests of the source: its destination, byte by byte
 *
 * It has QEMU's part in connecting, too: an attempt is under way until the
 * test says what comes of it.  All in the main thread, that of the test.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_TARGET_H
#define WSM_TARGET_H

#include "migration/wsm/wire/start.h"
#include "wsm-bytes.h"

/* Do connections go in TLS?  Only migrate_tls() says so. */
extern bool target_says_tls;

/* What START has said to it; @disk_size as in WsmLimits.  Both are kept. */
void target_init(const WsmStart *start, const int64_t *disk_size);

/* Forget all attempts that are under way, which come to nothing */
void target_cleanup(void);

/* Serve the main thread for a moment; it is an error to do so for long */
int64_t target_deadline(void);
void target_poll(int64_t deadline);

#define target_poll_until(condition)                                    \
    do {                                                                \
        int64_t deadline_ = target_deadline();                          \
                                                                        \
        while (!(condition)) {                                          \
            target_poll(deadline_);                                     \
        }                                                               \
    } while (0)

/* Poll until *@what, which is atomic, is @count or more */
void target_await(const unsigned *what, unsigned count);

/* How many attempts to connect there were since target_init() */
unsigned target_attempts(void);

/* Is one under way?  Wait for it.  What comes of it: an error, or our end. */
bool target_is_asked(void);
void target_await_attempt(void);
void target_fail(const char *error);
int target_connect(void);

/* The same, then the preamble and HELLO, in which @hello is what it says */
int target_accept(WsmHello *hello);

/* Say that, in answer to HELLO */
void target_say_welcome(int fd, uint32_t features);
void target_say_refuse(int fd, const char *text);

/* All this: a channel that is welcome; *@channel is its number */
int target_welcome(unsigned *channel);

/* So for channels from 0 to @count - 1, in whatever order they come */
void target_welcome_all(int *fd, unsigned count);

/*
 * The next message on channel @channel.  Its payload has at most @max bytes,
 * and is in @payload.
 */
WsmMsg target_recv(int fd, unsigned channel, void *payload, size_t max);

#endif
