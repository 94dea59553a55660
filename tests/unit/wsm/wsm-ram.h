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
} TestRam;

static inline RAMBlock *test_ram(TestRam *ram)
{
    return (RAMBlock *)ram;
}

#endif
