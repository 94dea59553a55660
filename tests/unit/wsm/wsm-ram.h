/*
 * For unit tests: blocks of memory, in place of migration/wsm/memory/ram.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_RAM_H
#define WSM_RAM_H

#include "migration/wsm/memory/ram.h"

#define TEST_RAM_PAGES  64

/* What a test looks into; a RAMBlock is one of these */
typedef struct TestRam {
    uint8_t data[TEST_RAM_PAGES][4096];
    bool received[TEST_RAM_PAGES];
    unsigned dirtied[TEST_RAM_PAGES];   /* how often */
    const char *name;
} TestRam;

static inline RAMBlock *test_ram(TestRam *ram)
{
    return (RAMBlock *)ram;
}

/* Called before memory is copied, if it is set */
extern void (*test_ram_on_copy)(void);

/* It can be found by @name, until all are forgotten */
void test_ram_name(TestRam *ram, const char *name);
void test_ram_forget(void);

#endif
