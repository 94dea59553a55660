/*
 * Whole-system migration: templates that the source may refer to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "migration/wsm/memory/tag.h"
#include "migration/wsm/source/templates.h"
#include "migration/wsm/trace.h"

struct WsmSourceTemplates {
    QemuMutex lock;             /* protects the fields below */
    WsmTemplates *own;          /* reference, or NULL */
    GByteArray *said;           /* the payload of SETS, or NULL */
    /* By the destination's number; NULL: it is not here.  Set only once. */
    WsmSet *set[WSM_MAX_SETS];
    unsigned n;                 /* how many of them are in use */
};

WsmSourceTemplates *wsm_source_templates_new(void)
{
    WsmSourceTemplates *t = g_new0(WsmSourceTemplates, 1);

    qemu_mutex_init(&t->lock);
    return t;
}

void wsm_source_templates_free(WsmSourceTemplates *t)
{
    wsm_templates_unref(t->own);
    if (t->said) {
        g_byte_array_unref(t->said);
    }
    qemu_mutex_destroy(&t->lock);
    g_free(t);
}

void wsm_source_templates_own(WsmSourceTemplates *t, WsmTemplates *own)
{
    QEMU_LOCK_GUARD(&t->lock);

    assert(!t->own && !t->said);
    t->own = wsm_templates_ref(own);
}

/* @lock: has it been said before?  Then it must be the same. */
static bool wsm_source_templates_again(WsmSourceTemplates *t,
                                       const uint8_t *payload, size_t length,
                                       Error **errp)
{
    if (t->said->len != length || memcmp(t->said->data, payload, length)) {
        error_setg(errp, "SETS: they are others than before");
        return false;
    }
    return true;
}

bool wsm_source_templates_said(WsmSourceTemplates *t, const uint8_t *payload,
                               size_t length, Error **errp)
{
    WsmSetDesc desc[WSM_MAX_SETS];
    QEMU_LOCK_GUARD(&t->lock);
    unsigned n;

    if (t->said) {
        return wsm_source_templates_again(t, payload, length, errp);
    }
    if (!wsm_sets_decode(payload, length, desc, &n, errp)) {
        return false;
    }
    for (unsigned i = 0; t->own && i < n; i++) {
        t->set[i] = wsm_templates_find(t->own, &desc[i]);
        t->n += !!t->set[i];
    }
    trace_wsm_source_templates_said(n, t->n);
    t->said = g_byte_array_new();
    g_byte_array_append(t->said, payload, length);
    return true;
}

bool wsm_source_templates_find(WsmSourceTemplates *t, const void *page,
                               WsmRef *ref)
{
    uint8_t hash[WSM_HASH_SIZE];
    WsmSet *set[WSM_MAX_SETS];
    uint64_t number;

    WITH_QEMU_LOCK_GUARD(&t->lock) {
        if (!t->n) {
            return false;
        }
        memcpy(set, t->set, sizeof(set));
    }
    wsm_page_hash(page, hash);
    for (unsigned i = 0; i < WSM_MAX_SETS; i++) {
        if (set[i] && wsm_set_find(set[i], wsm_set_prefix(hash), &number)) {
            *ref = (WsmRef) {
                .kind = WSM_REF_TEMPLATE, .disk = i, .block = number,
            };
            return true;
        }
    }
    return false;
}
