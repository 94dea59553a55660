/*
 * For unit tests: what the user is warned of, instead of on stderr
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_WARNINGS_H
#define WSM_WARNINGS_H

/* Since the last call of these: there were some, with @text; there were none */
void warnings_expect(const char *text);
void warnings_expect_none(void);

#endif
