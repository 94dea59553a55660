/*
 * Unit tests of migration/wsm/source/work.c
 *
 * A shadow model knows the content of each block on both sides, which blocks
 * ought to be dirty, and what is on the wire.  A guest writes, coroutines read
 * and send, connections break, answers are late or say no, all at random; after
 * each step the bitmap must be the model's, the law must hold, and in the end
 * both sides must be equal.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/block.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "migration/wsm/core/hash.h"
#include "migration/wsm/source/work.h"
#include "migration/wsm/wire/message.h"
#include "migration/wsm/wire/runs.h"

#define BLOCK           (64 * KiB)
#define DISKS           2
#define LANES           3               /* with the urgent one */
#define MOST_BLOCKS     160
#define ENOUGH          200000          /* steps until something must be over */

/* What a coroutine has done with a request */
typedef enum Stage { TAKEN, FETCHED, SENDING, SENT } Stage;

/* A request, and what was read of it */
typedef struct Task {
    WsmReq *req;                /* gone when it is answered, after SENT */
    Stage stage;
    bool answered, arrived;
    unsigned lane, disk;
    unsigned connection;
    uint64_t first, blocks;     /* of the disk */
    bool read;
    uint32_t version[MOST_BLOCKS * 8];
    int64_t offset, bytes;
    uint32_t epoch;
    WsmReqKind kind;
} Task;

/* On its way to the destination, or the answer back */
typedef struct Mail {
    Task job;                    /* copy */
    bool answer, ok;
    uint8_t *hashes;
} Mail;

typedef struct Model {
    WsmWork *work;
    BlockDriverState *bs[DISKS];
    int64_t size[DISKS];
    uint32_t src[DISKS][MOST_BLOCKS], dst[DISKS][MOST_BLOCKS];
    bool dirty[DISKS][MOST_BLOCKS];
    bool compare[DISKS][MOST_BLOCKS];
    bool written[DISKS][MOST_BLOCKS];   /* by the guest, in this pass */
    bool missing[DISKS][MOST_BLOCKS];   /* at the destination, frozen */
    bool residue[DISKS][MOST_BLOCKS];   /* the same, at the freeze */
    bool frozen, over, calm;
    uint32_t last_version;
    GPtrArray *jobs;            /* of Task */
    bool up[LANES], idle[LANES];
    unsigned connection[LANES];
    GQueue wire[LANES], back[LANES];    /* of Mail */
    unsigned compared, passes, pulled, returns;
} Model;

static Model m;

static int64_t blocks_of(unsigned disk)
{
    return DIV_ROUND_UP(m.size[disk], BLOCK);
}

static bool one_in(int n)
{
    return g_test_rand_int_range(0, n) == 0;
}

static void mail_free(void *opaque)
{
    Mail *mail = opaque;

    g_free(mail->hashes);
    g_free(mail);
}

/*
 * What work.c calls
 */

static void changed(void *opaque)
{
    g_assert_true(opaque == &m);
    memset(m.idle, 0, sizeof(m.idle));
}

static void pass_over(void *opaque, WsmPassState pass)
{
    g_assert_cmpint(pass, ==, m.frozen ? WSM_PASS_PUSH : WSM_PASS_SEND);
    g_assert_false(m.over);
    m.over = true;
}

/* A pass that is over has nothing left but what was written meanwhile */
static void check_over(void)
{
    g_assert_cmpuint(m.jobs->len, ==, 0);
    for (unsigned d = 0; d < DISKS; d++) {
        for (int b = 0; b < blocks_of(d); b++) {
            g_assert_true(!m.dirty[d][b] || (m.written[d][b] && !m.frozen));
            g_assert_false(m.missing[d][b]);
            if (!m.frozen && !m.dirty[d][b]) {
                g_assert_cmpuint(m.src[d][b], ==, m.dst[d][b]);
            }
        }
    }
}

static void compared(void *opaque, const WsmReq *req, int64_t differ)
{
    g_assert_cmpint(differ, >=, 0);
    g_assert_cmpint(differ, <=, req->bytes);
    m.compared++;
}

static const WsmWorkOps ops = {
    .changed = changed,
    .pass_over = pass_over,
    .compared = compared,
};

/*
 * The model
 */

static void set_range(bool (*map)[MOST_BLOCKS], unsigned disk, uint64_t first,
                      uint64_t blocks, bool value)
{
    for (uint64_t b = first; b < first + blocks; b++) {
        map[disk][b] = value;
    }
}

static void job_range(Task *job)
{
    job->offset = job->req->offset;
    job->bytes = job->req->bytes;
    job->first = job->offset / BLOCK;
    job->blocks = DIV_ROUND_UP(job->bytes, BLOCK);
}

/* The request became shorter: what is behind it is dirty again */
static void job_shrink(Task *job)
{
    uint64_t end = job->first + job->blocks;

    job_range(job);
    set_range(m.dirty, job->disk, job->first + job->blocks,
              end - job->first - job->blocks, true);
}

/* @req was just taken: all of it was dirty, and nobody else has it */
static Task *job_new(WsmReq *req)
{
    Task *job = g_new0(Task, 1);

    job->req = req;
    job->lane = req->lane;
    job->disk = req->disk;
    job->connection = m.connection[job->lane];
    job->epoch = req->epoch;
    job_range(job);
    g_assert_cmpuint(req->epoch, ==, m.frozen);
    for (unsigned b = job->first; b < job->first + job->blocks; b++) {
        g_assert_true(m.dirty[job->disk][b]);
        g_assert_true((req->kind == WSM_REQ_COMPARE) ==
                      (m.compare[job->disk][b] && !m.frozen));
    }
    for (unsigned i = 0; i < m.jobs->len; i++) {
        Task *other = g_ptr_array_index(m.jobs, i);

        g_assert_true(other->disk != job->disk ||
                      other->offset >= job->offset + job->bytes ||
                      job->offset >= other->offset + other->bytes);
    }
    set_range(m.dirty, job->disk, job->first, job->blocks, false);
    g_ptr_array_add(m.jobs, job);
    return job;
}

static void job_end(Task *job, bool arrived)
{
    if (!arrived) {
        set_range(m.dirty, job->disk, job->first, job->blocks, true);
    } else {
        set_range(m.compare, job->disk, job->first, job->blocks, false);
    }
    g_ptr_array_remove(m.jobs, job);
}

static Task *find_job(const Task *copy)
{
    for (unsigned i = 0; i < m.jobs->len; i++) {
        Task *job = g_ptr_array_index(m.jobs, i);

        if (job->req == copy->req && job->offset == copy->offset &&
            job->connection == copy->connection && !job->answered) {
            return job;
        }
    }
    return NULL;
}

static bool in_job(unsigned disk, unsigned block)
{
    for (unsigned i = 0; i < m.jobs->len; i++) {
        Task *job = g_ptr_array_index(m.jobs, i);

        if (job->disk == disk && block - job->first < job->blocks) {
            return !job->read ||
                   job->version[block - job->first] == m.src[disk][block];
        }
    }
    return false;
}

static void check(void)
{
    wsm_work_check(m.work);
    for (unsigned d = 0; d < DISKS; d++) {
        BdrvDirtyBitmap *bitmap = wsm_work_dirty_bitmap(m.work, d);
        int64_t count = 0;

        for (int b = 0; b < blocks_of(d); b++) {
            bool lacks = m.frozen ? m.missing[d][b]
                                  : m.src[d][b] != m.dst[d][b];

            g_assert_true(bdrv_dirty_bitmap_get(bitmap, b * BLOCK) ==
                          m.dirty[d][b]);
            g_assert_true(!lacks || m.dirty[d][b] || in_job(d, b));
            count += m.dirty[d][b] * BLOCK;
        }
        g_assert_cmpint(wsm_work_dirty(m.work, d), ==, count);
    }
    if (m.over) {
        m.over = false;
        m.passes++;
        check_over();
    }
}

/*
 * The guest
 */

static void guest_writes(void)
{
    unsigned d = g_test_rand_int_range(0, DISKS);
    unsigned first = g_test_rand_int_range(0, blocks_of(d));
    unsigned n = MIN(g_test_rand_int_range(1, 12), blocks_of(d) - first);
    uint32_t version = one_in(3) ? 0 : ++m.last_version;

    for (unsigned b = first; b < first + n; b++) {
        m.src[d][b] = version;
    }
    set_range(m.dirty, d, first, n, true);
    set_range(m.written, d, first, n, true);
    bdrv_set_dirty(m.bs[d], first * BLOCK,
                   MIN(n * BLOCK, m.size[d] - first * BLOCK));
}

/*
 * Coroutines of the source
 */

static void take(unsigned lane)
{
    WsmReq *req;
    Task *job;
    int64_t n;
    bool zero;

    if (m.idle[lane]) {
        return;
    }
    req = wsm_work_take(m.work, lane);
    if (!req) {
        m.idle[lane] = true;
        return;
    }
    g_assert_true(m.up[lane]);
    job = job_new(req);
    if (!wsm_req_needs_status(req) || one_in(8)) {
        wsm_req_fit(req, false, 0);
    } else {
        zero = !m.src[job->disk][job->first];
        for (n = 1; n < job->blocks; n++) {
            if (!m.src[job->disk][job->first + n] != zero || one_in(50)) {
                break;
            }
        }
        n *= BLOCK;
        if (n + BLOCK / 2 < job->bytes && one_in(4)) {
            /* The image may have smaller clusters: a block that is half zero */
            n += zero ? BLOCK / 2 : -BLOCK / 2;
        }
        wsm_req_fit(req, zero, MIN(n, job->bytes));
    }
    job_shrink(job);
}

static void pull(void)
{
    unsigned d = g_test_rand_int_range(0, DISKS);
    unsigned first = g_test_rand_int_range(0, blocks_of(d));
    int64_t offset = first * (int64_t)BLOCK;
    int64_t end = MIN(offset + g_test_rand_int_range(1, 20) * BLOCK,
                      m.size[d]);
    WsmReq *req;

    while (m.up[0] && (req = wsm_work_pull(m.work, 0, d, &offset, end))) {
        g_assert_true(req->pull);
        g_assert_cmpint(req->offset + req->bytes, ==, offset);
        g_assert_cmpint(offset, <=, end);
        job_new(req);
        m.pulled++;
    }
}

static void fetch(Task *job)
{
    g_autofree uint8_t *buf = g_malloc0(job->bytes);

    for (unsigned b = 0; b < job->blocks; b++) {
        job->version[b] = m.src[job->disk][job->first + b];
        memset(buf + b * BLOCK, job->version[b] != 0,
               MIN(BLOCK, job->bytes - b * BLOCK));
    }
    job->read = true;
    if (job->req->kind == WSM_REQ_DATA) {
        wsm_req_find_zeroes(job->req, buf);
        job_shrink(job);
    }
    job->kind = job->req->kind;
    if (job->kind == WSM_REQ_ZERO) {
        for (unsigned b = 0; b < job->blocks; b++) {
            /* If the guest has written since, it is dirty */
            job->version[b] = 0;
        }
    }
    job->stage = FETCHED;
}

static void job_put_back(Task *job)
{
    WsmReq *req = job->req;

    job_end(job, false);
    wsm_req_put_back(req);
}

static void send_it(Task *job)
{
    Mail *mail;

    if (!wsm_req_can_go(job->req)) {
        g_assert_true(!m.up[job->lane] ||
                      m.connection[job->lane] != job->connection);
        job_put_back(job);
        return;
    }
    g_assert_true(m.up[job->lane]);
    g_assert_cmpuint(m.connection[job->lane], ==, job->connection);
    wsm_req_sending(job->req, m.last_version);
    job->stage = SENDING;
    if (!one_in(20) || m.calm) {
        mail = g_new0(Mail, 1);
        mail->job = *job;
        g_queue_push_tail(&m.wire[job->lane], mail);
    } else {
        /* It did not get out whole: the channel is as good as down */
    }
}

/* Hashes of versions, as if they were of blocks; of zeroes they are zero */
static uint8_t *hashes_of(const uint32_t *version, unsigned n)
{
    uint8_t *hashes = g_malloc0(n * WSM_HASH_SIZE);

    for (unsigned i = 0; i < n; i++) {
        memcpy(hashes + i * WSM_HASH_SIZE, &version[i], sizeof(*version));
    }
    return hashes;
}

/* The comparison is over: what differs is dirty */
static void job_compared(Task *job, const uint32_t *theirs)
{
    for (unsigned b = 0; b < job->blocks; b++) {
        if (job->version[b] != theirs[b]) {
            m.dirty[job->disk][job->first + b] = true;
        }
    }
    job_end(job, true);
}

/* Versions that the destination has said, of a comparison that is answered */
static uint32_t theirs_of(const uint8_t *hashes, unsigned i)
{
    uint32_t version;

    memcpy(&version, hashes + i * WSM_HASH_SIZE, sizeof(version));
    return version;
}

static void job_finish(Task *job)
{
    if (job->arrived && job->kind == WSM_REQ_COMPARE) {
        g_autofree uint32_t *theirs = g_new0(uint32_t, job->blocks);

        for (unsigned b = 0; b < job->blocks && job->req->theirs; b++) {
            theirs[b] = theirs_of(job->req->theirs, b);
        }
        job_compared(job, theirs);
    } else {
        job_end(job, job->arrived);
    }
}

/* Its coroutine has done its part */
static void release(Task *job)
{
    WsmReq *req = job->req;

    if (job->kind == WSM_REQ_COMPARE) {
        if (!wsm_req_can_go(req)) {
            job_put_back(job);
            return;
        }
        req->mine = hashes_of(job->version, job->blocks);
    }
    if (job->answered) {
        job_finish(job);
    } else {
        job->stage = SENT;
    }
    wsm_req_sent(req);
}

static void work_on(Task *job)
{
    switch (job->stage) {
    case TAKEN:
        if (!m.calm && one_in(30)) {
            job_put_back(job);          /* it cannot be read */
        } else {
            fetch(job);
        }
        break;
    case FETCHED:
        send_it(job);
        break;
    case SENDING:
        release(job);
        break;
    case SENT:
        break;
    }
}

/*
 * The destination
 */

static void arrive(unsigned lane)
{
    Mail *mail = g_queue_pop_head(&m.wire[lane]);
    Task *job;

    if (!mail) {
        return;
    }
    job = &mail->job;
    mail->answer = true;
    mail->ok = m.calm || !one_in(20);
    if (!mail->ok) {
        g_queue_push_tail(&m.back[lane], mail);
        return;
    }
    if (job->kind == WSM_REQ_COMPARE) {
        mail->hashes = hashes_of(&m.dst[job->disk][job->first], job->blocks);
    }
    for (unsigned b = 0; b < job->blocks; b++) {
        unsigned at = job->first + b;

        if (job->kind == WSM_REQ_COMPARE ||
            (m.frozen && (!job->epoch || !m.missing[job->disk][at]))) {
            continue;
        }
        m.dst[job->disk][at] = job->version[b];
        m.missing[job->disk][at] = false;
    }
    g_queue_push_tail(&m.back[lane], mail);
}

static void answer(unsigned lane)
{
    Mail *mail = m.up[lane] ? g_queue_pop_head(&m.back[lane]) : NULL;
    const Task *copy = mail ? &mail->job : NULL;
    WsmReq *req;
    Task *job;

    if (!mail) {
        return;
    }
    req = wsm_work_find(m.work, lane, copy->disk, copy->offset, copy->bytes,
                        copy->epoch);
    job = find_job(copy);
    g_assert_nonnull(job);
    g_assert_true(req == job->req);
    job->answered = true;
    job->arrived = mail->ok;
    if (mail->ok && copy->kind == WSM_REQ_COMPARE) {
        req->theirs = g_steal_pointer(&mail->hashes);
    }
    if (job->stage == SENT) {
        job_finish(job);
        wsm_req_answer(req, mail->ok, m.last_version + 1);
    } else {
        wsm_req_answer(req, mail->ok, m.last_version + 1);
        /* Not twice */
        g_assert_null(wsm_work_find(m.work, lane, copy->disk, copy->offset,
                                    copy->bytes, copy->epoch));
    }
    mail_free(mail);
}

/* The destination's guest has overwritten something; the source may hear */
static void have(void)
{
    unsigned d = g_test_rand_int_range(0, DISKS);
    unsigned b = g_test_rand_int_range(0, blocks_of(d));

    m.missing[d][b] = false;
    m.dst[d][b] = UINT32_MAX;
    if (m.up[0] && !one_in(4)) {
        m.dirty[d][b] = false;
        wsm_work_have(m.work, d, b * BLOCK,
                      MIN(BLOCK, m.size[d] - b * BLOCK));
    }
}

/*
 * Connections
 */

/* What no coroutine has, of @lane, is dirty again */
static void lose_sent(unsigned lane)
{
    for (int i = m.jobs->len - 1; i >= 0; i--) {
        Task *job = g_ptr_array_index(m.jobs, i);

        if (job->lane == lane && job->stage == SENT) {
            job_end(job, false);
        }
    }
}

static void go_down(unsigned lane)
{
    m.up[lane] = false;
    wsm_work_lane_down(m.work, lane);
    check();
    /* Who sends on it ends, at once; who hashes need not */
    for (int i = m.jobs->len - 1; i >= 0; i--) {
        Task *job = g_ptr_array_index(m.jobs, i);

        if (job->lane == lane && job->stage == SENDING &&
            job->kind != WSM_REQ_COMPARE) {
            release(job);
        }
    }
    g_queue_clear_full(&m.back[lane], mail_free);
    if (m.frozen) {
        lose_sent(lane);
    }
    wsm_work_lane_gone(m.work, lane);
}

static void come_up(unsigned lane)
{
    /* The connection before is gone, with all its writes, or without them */
    while (!g_queue_is_empty(&m.wire[lane])) {
        if (one_in(2)) {
            mail_free(g_queue_pop_head(&m.wire[lane]));
        } else {
            arrive(lane);
        }
    }
    g_queue_clear_full(&m.back[lane], mail_free);
    m.up[lane] = true;
    m.connection[lane]++;
    lose_sent(lane);
    wsm_work_lane_up(m.work, lane);
}

static bool has_job(unsigned disk, unsigned block)
{
    for (unsigned i = 0; i < m.jobs->len; i++) {
        Task *job = g_ptr_array_index(m.jobs, i);

        if (job->disk == disk && block - job->first < job->blocks) {
            return true;
        }
    }
    return false;
}

static void lack(unsigned d)
{
    g_autoptr(GByteArray) runs = g_byte_array_new();
    WsmRunsEncoder e;

    wsm_runs_encode_init(&e, runs);
    for (unsigned b = 0; b < blocks_of(d); b++) {
        if (m.missing[d][b]) {
            wsm_runs_encode(&e, b, 1);
            m.dirty[d][b] |= !has_job(d, b);
        }
    }
    g_assert_true(wsm_work_lacks(m.work, d, 0, m.size[d], runs->data, runs->len,
                                 &error_abort));
}

/* The destination dies: what was not durable there is missing again */
static void come_back(void)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        if (m.up[lane]) {
            go_down(lane);
        }
        g_queue_clear_full(&m.wire[lane], mail_free);
    }
    for (unsigned d = 0; d < DISKS; d++) {
        for (unsigned b = 0; b < blocks_of(d); b++) {
            if (m.residue[d][b] && one_in(4)) {
                m.missing[d][b] = true;
                m.dst[d][b] = UINT32_MAX;
            }
        }
    }
    come_up(0);
    for (unsigned d = 0; d < DISKS; d++) {
        lack(d);
    }
    m.returns++;
}

/*
 * All of it
 */

static void step(void)
{
    unsigned lane = g_test_rand_int_range(0, LANES);

    switch (g_test_rand_int_range(0, 12)) {
    case 0:
        if (!m.frozen && !m.calm) {
            guest_writes();
        } else if (m.frozen && !m.calm && one_in(4)) {
            have();
        } else if (m.frozen && !m.calm && one_in(20)) {
            come_back();
        }
        break;
    case 1:
        if (m.up[lane] && !m.calm && one_in(20)) {
            go_down(lane);
        }
        break;
    case 2:
        if (!m.up[lane]) {
            come_up(lane);
        }
        break;
    case 3:
        if (wsm_work_pass(m.work) == WSM_PASS_PUSH) {
            pull();
        }
        break;
    case 4:
    case 5:
        take(g_test_rand_int_range(1, LANES));
        break;
    case 6:
    case 7:
        arrive(lane);
        break;
    case 8:
        answer(lane);
        break;
    default:
        if (m.jobs->len) {
            work_on(g_ptr_array_index(m.jobs, g_test_rand_int_range(
                                                   0, m.jobs->len)));
        }
        break;
    }
    check();
}

static void run_until_over(void)
{
    unsigned passes = m.passes;

    for (int i = 0; m.passes == passes; i++) {
        g_assert_cmpint(i, <, ENOUGH);
        m.calm = i > ENOUGH / 100;
        if (m.calm) {
            for (unsigned lane = 0; lane < LANES; lane++) {
                if (!m.up[lane]) {
                    come_up(lane);
                }
                /* What did not get out whole is found out in the end */
                if (i % 1000 == 0) {
                    go_down(lane);
                }
            }
        }
        step();
    }
    m.calm = false;
}

static BlockDriverState *new_node(int64_t size)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "null-co");
    qdict_put_int(options, "size", size);
    return bdrv_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
}

static void set_up(void)
{
    m = (Model) {};
    m.work = wsm_work_new(qemu_get_aio_context(), LANES, BLOCK, &ops, &m);
    m.jobs = g_ptr_array_new_with_free_func(g_free);
    for (unsigned d = 0; d < DISKS; d++) {
        m.size[d] = g_test_rand_int_range(1, MOST_BLOCKS) * BLOCK -
                    (one_in(2) ? 512 * g_test_rand_int_range(0, 128) : 0);
        m.size[d] = MAX(m.size[d], 512);
        m.bs[d] = new_node(m.size[d]);
        g_assert_true(wsm_work_add_disk(m.work, m.bs[d], m.size[d],
                                        &error_abort));
        for (int b = 0; b < blocks_of(d); b++) {
            m.src[d][b] = one_in(3) ? 0 : ++m.last_version;
            m.dst[d][b] = one_in(2) ? m.src[d][b] : UINT32_MAX;
        }
        set_range(m.dirty, d, 0, blocks_of(d), true);
    }
    for (unsigned i = 0; i < LANES; i++) {
        g_queue_init(&m.wire[i]);
        g_queue_init(&m.back[i]);
    }
}

static void tear_down(void)
{
    for (unsigned i = 0; i < LANES; i++) {
        g_queue_clear_full(&m.wire[i], mail_free);
        g_queue_clear_full(&m.back[i], mail_free);
    }
    for (unsigned d = 0; d < DISKS; d++) {
        wsm_work_release_disk(m.work, d);
        g_assert_null(wsm_work_dirty_bitmap(m.work, d));
        g_assert_cmpint(wsm_work_dirty(m.work, d), ==, 0);
        bdrv_unref(m.bs[d]);
    }
    wsm_work_free(m.work);
    g_ptr_array_unref(m.jobs);
}

/* All that differs is set; the rest both sides have */
static void build_on_point(unsigned disk)
{
    BdrvDirtyBitmap *dirty = wsm_work_start_anew(m.work, disk);

    for (int b = 0; b < blocks_of(disk); b++) {
        m.dirty[disk][b] = m.src[disk][b] != m.dst[disk][b];
        if (m.dirty[disk][b]) {
            bdrv_set_dirty_bitmap(dirty, b * BLOCK, 1);
        }
    }
}

/* Where the destination has data it is compared */
static void build_on_content(unsigned disk)
{
    BdrvDirtyBitmap *compare = wsm_work_start_compare(m.work, disk,
                                                      &error_abort);

    for (int b = 0; b < blocks_of(disk); b++) {
        m.compare[disk][b] = m.dst[disk][b] && !one_in(4);
        if (m.compare[disk][b]) {
            bdrv_set_dirty_bitmap(compare, b * BLOCK, 1);
        }
    }
}

static void begin_pass(void)
{
    memset(m.written, 0, sizeof(m.written));
    wsm_work_begin_pass(m.work);
    check();
}

static void freeze(void)
{
    for (unsigned d = 0; d < DISKS; d++) {
        memcpy(m.missing[d], m.dirty[d], sizeof(m.missing[d]));
        memcpy(m.residue[d], m.dirty[d], sizeof(m.residue[d]));
    }
    /* What is still on its way is dropped there */
    m.frozen = true;
    wsm_work_begin_push(m.work);
    check();
}

typedef void Build(unsigned disk);

static void run_migration(Build *build)
{
    unsigned passes = g_test_rand_int_range(1, 4);

    set_up();
    for (unsigned d = 0; build && d < DISKS; d++) {
        build(d);
    }
    check();
    for (unsigned i = 0; i < passes; i++) {
        begin_pass();
        if (m.passes == i) {
            run_until_over();
        }
        guest_writes();
        g_assert_null(wsm_work_take(m.work, 1));
        check();
    }
    freeze();
    if (m.passes == passes) {
        run_until_over();
    }
    if (one_in(2)) {
        /* All was said to be there */
        come_back();
        check();
        if (wsm_work_pass(m.work) == WSM_PASS_PUSH) {
            run_until_over();
        }
    }
    g_assert_cmpint(wsm_work_pass(m.work), ==, WSM_PASS_PUSHED);
    g_assert_cmpint(wsm_work_all_dirty(m.work), ==, 0);
    wsm_work_stop(m.work);
    tear_down();
}

static void test_full(void)
{
    unsigned returned = 0;

    for (int i = 0; i < 40; i++) {
        run_migration(NULL);
        returned += m.returns > 0;
    }
    g_assert_cmpuint(returned, >, 10);
}

static void test_point(void)
{
    for (int i = 0; i < 20; i++) {
        run_migration(build_on_point);
    }
}

static void test_content(void)
{
    unsigned compared_some = 0;

    for (int i = 0; i < 40; i++) {
        run_migration(build_on_content);
        compared_some += m.compared > 0;
    }
    g_assert_cmpuint(compared_some, >, 20);
}

/* Broken off anywhere: what was in flight is dirty */
static void test_stop(void)
{
    for (int i = 0; i < 100; i++) {
        set_up();
        if (one_in(2)) {
            build_on_content(0);
        }
        begin_pass();
        for (int n = g_test_rand_int_range(0, 300); n && !m.passes; n--) {
            step();
        }
        while (m.jobs->len) {
            job_end(g_ptr_array_index(m.jobs, 0), false);
        }
        wsm_work_stop(m.work);
        check();
        tear_down();
    }
}

/* Whoever found nothing to take is woken, and the last answer ends the pass */
static void test_last_answer(void)
{
    set_up();
    m.calm = true;
    for (unsigned i = 0; i < LANES; i++) {
        come_up(i);
    }
    begin_pass();
    while (!m.passes) {
        take(1);
        check();
        g_assert_cmpuint(m.jobs->len, >, 0);
        for (int i = m.jobs->len - 1; i >= 0; i--) {
            Task *job = g_ptr_array_index(m.jobs, i);

            while (job->stage != SENT) {
                work_on(job);
            }
        }
        while (m.jobs->len) {
            m.idle[1] = true;
            arrive(1);
            answer(1);
            g_assert_false(m.idle[1]);
            check();
        }
    }
    /* Nothing is dirty, so this is over when it begins */
    freeze();
    g_assert_cmpuint(m.passes, ==, 2);
    tear_down();
}

/* What is dirty last is overwritten at the destination */
static void test_last_have(void)
{
    set_up();
    freeze();
    for (unsigned d = 0; d < DISKS; d++) {
        g_assert_cmpuint(m.passes, ==, 0);
        set_range(m.dirty, d, 0, blocks_of(d), false);
        set_range(m.missing, d, 0, blocks_of(d), false);
        wsm_work_have(m.work, d, 0, m.size[d]);
        check();
    }
    g_assert_cmpuint(m.passes, ==, 1);
    tear_down();
}

/* No more is taken than the windows let, and then it is what comes next */
static void test_windows(void)
{
    int64_t offset = 0, in_flight = 0, end;
    WsmReq *req;

    set_up();
    while (m.size[0] < 140 * BLOCK) {
        tear_down();
        set_up();
    }
    m.calm = true;
    come_up(0);
    come_up(1);
    freeze();
    take(1);
    take(1);
    g_assert_cmpuint(m.jobs->len, <=, 2);
    end = m.size[0];
    while ((req = wsm_work_pull(m.work, 0, 0, &offset, end))) {
        g_assert_cmpint(in_flight, <, 8 * MiB);
        job_new(req);
        in_flight += req->bytes;
    }
    g_assert_cmpint(offset, <, end);
    check();
    run_until_over();
    tear_down();
}

/* Neither is there when something went wrong in the beginning */
static void test_nothing(void)
{
    m = (Model) {};
    wsm_work_stop(NULL);
    wsm_work_free(NULL);
    g_assert_cmpint(wsm_work_dirty(NULL, 0), ==, 0);
    g_assert_cmpint(wsm_work_all_dirty(NULL), ==, 0);
    wsm_work_release_disk(NULL, 0);

    m.work = wsm_work_new(qemu_get_aio_context(), LANES, BLOCK, &ops, &m);
    wsm_work_release_disk(m.work, 0);
    g_assert_null(wsm_work_dirty_bitmap(m.work, 0));
    /* No disk: each pass is over when it begins */
    wsm_work_begin_pass(m.work);
    g_assert_true(m.over);
    m.over = false;
    m.frozen = true;
    wsm_work_begin_push(m.work);
    g_assert_true(m.over);
    g_assert_cmpint(wsm_work_pass(m.work), ==, WSM_PASS_PUSHED);
    wsm_work_free(m.work);
}

int main(int argc, char **argv)
{
    bdrv_init();
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wsm/work/nothing", test_nothing);
    g_test_add_func("/wsm/work/last-answer", test_last_answer);
    g_test_add_func("/wsm/work/last-have", test_last_have);
    g_test_add_func("/wsm/work/windows", test_windows);
    g_test_add_func("/wsm/work/full", test_full);
    g_test_add_func("/wsm/work/point", test_point);
    g_test_add_func("/wsm/work/content", test_content);
    g_test_add_func("/wsm/work/stop", test_stop);
    return g_test_run();
}
