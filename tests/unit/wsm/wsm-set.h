/*
 * For unit tests: files of sets of templates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_UNIT_WSM_WSM_SET_H
#define TESTS_UNIT_WSM_WSM_SET_H

#include "migration/wsm/memory/templates.h"

/*
 * Write a file with a set of @n pages, each full of a byte of @fill.  Returns
 * its name; test_set_remove() removes it and frees the name.
 */
char *test_set_write(WsmSetKind kind, const uint8_t *fill, unsigned n);
void test_set_remove(char *file);

/* The number of the page that is full of @fill */
uint64_t test_set_number(const WsmSet *set, uint8_t fill);

/* Open a set, of one file and scope, or @n of them */
WsmTemplates *test_templates(unsigned n, char *const *file,
                             const char *const *scope, Error **errp);

#endif
