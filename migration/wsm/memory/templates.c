/*
 * Whole-system migration: the sets of templates that this QEMU may use
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "migration/wsm/memory/templates.h"

struct WsmTemplates {
    /* Set in open, never changed */
    unsigned n;
    struct {
        WsmSet *set;            /* owned */
        char *scope;
    } set[WSM_MAX_SETS];

    unsigned users;             /* atomic: references to this */
};

static bool wsm_templates_check(const WsmTemplates *t,
                                const WsmTemplateSet *set, Error **errp)
{
    if (t->n == WSM_MAX_SETS) {
        error_setg(errp, "more than %d sets of templates; build fewer and "
                   "larger ones", WSM_MAX_SETS);
        return false;
    }
    if (!wsm_scope_is_good(set->scope, strlen(set->scope))) {
        error_setg(errp, "scope '%s' is not 1 to %d letters, digits, '-', '_' "
                   "and '.'", set->scope, WSM_MAX_SCOPE);
        return false;
    }
    return true;
}

static bool wsm_templates_add(WsmTemplates *t, const WsmTemplateSet *desc,
                              Error **errp)
{
    WsmSet *set;

    if (!wsm_templates_check(t, desc, errp)) {
        return false;
    }
    set = wsm_set_open(desc->file, errp);
    if (!set) {
        return false;
    }
    t->set[t->n].scope = g_strdup(desc->scope);
    t->set[t->n++].set = set;
    return true;
}

WsmTemplates *wsm_templates_open(const WsmTemplateSetList *sets, Error **errp)
{
    WsmTemplates *t = g_new0(WsmTemplates, 1);

    t->users = 1;
    for (; sets; sets = sets->next) {
        if (!wsm_templates_add(t, sets->value, errp)) {
            wsm_templates_unref(t);
            return NULL;
        }
    }
    return t;
}

WsmTemplates *wsm_templates_ref(WsmTemplates *t)
{
    qatomic_inc(&t->users);
    return t;
}

void wsm_templates_unref(WsmTemplates *t)
{
    if (t && qatomic_fetch_dec(&t->users) == 1) {
        for (unsigned i = 0; i < t->n; i++) {
            wsm_set_free(t->set[i].set);
            g_free(t->set[i].scope);
        }
        g_free(t);
    }
}

unsigned wsm_templates_count(const WsmTemplates *t)
{
    return t->n;
}

WsmSet *wsm_templates_set(const WsmTemplates *t, unsigned i)
{
    assert(i < t->n);
    return t->set[i].set;
}

const char *wsm_templates_scope(const WsmTemplates *t, unsigned i)
{
    assert(i < t->n);
    return t->set[i].scope;
}

WsmSet *wsm_templates_find(const WsmTemplates *t, const WsmSetDesc *desc)
{
    for (unsigned i = 0; i < t->n; i++) {
        const WsmSetHeader *h = wsm_set_header(t->set[i].set);

        if (!memcmp(h->id, desc->id, WSM_HASH_SIZE) &&
            h->count == desc->count &&
            !strcmp(t->set[i].scope, desc->scope)) {
            return t->set[i].set;
        }
    }
    return NULL;
}
