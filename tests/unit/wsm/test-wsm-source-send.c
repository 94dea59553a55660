/*
 * Unit tests of migration/wsm/source/send.c, compare.c and disk.c
 *
 * A whole source, of which this thread is the guest and the destination.  The
 * latter is a shadow model: it has what has arrived, what it still lacks after
 * the freeze, and what it has not answered yet, so that each message can be
 * held against the rules, and in the end both sides must be equal.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "block/graph-lock.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "migration/wsm/core/hash.h"
#include "migration/wsm/source/ops.h"
#include "wsm-origin.h"

#define DISKS           2
#define BULK            2
#define CHANNELS        (1 + BULK)
#define BLOCK           ORIGIN_BLOCK
#define MOST_BLOCKS     200

/* What the destination has */
typedef struct Image {
    uint8_t *data;
    bool missing[MOST_BLOCKS];          /* after the freeze */
    bool overwritten[MOST_BLOCKS];      /* by the guest there, after it */
    bool in_flight[MOST_BLOCKS];        /* was received, is not answered */
    uint64_t sent, zero, hashed, pulled;        /* bytes received so far */
} Image;

typedef struct Answer {
    unsigned channel;
    WsmMsg msg;
    GByteArray *payload;
} Answer;

static Origin o;
static OriginDisk disk[DISKS];
static Image image[DISKS];
static int fd[CHANNELS];                /* -1: there is no connection */
static GQueue answers = G_QUEUE_INIT;   /* of Answer */
static bool frozen;
static unsigned breaks;                 /* how many more there may be */
static unsigned received;               /* messages about blocks */
static unsigned closed;                 /* connections, by the source */

static bool one_in(int n)
{
    return g_test_rand_int_range(0, n) == 0;
}

static unsigned blocks_of(unsigned d)
{
    return DIV_ROUND_UP(disk[d].size, BLOCK);
}

static unsigned random_block(unsigned d)
{
    return g_test_rand_int_range(0, blocks_of(d));
}

static int64_t bytes_of(unsigned d, unsigned block)
{
    return MIN(BLOCK, disk[d].size - (int64_t)block * BLOCK);
}

/*
 * The destination
 */

static void answer_free(void *opaque)
{
    Answer *a = opaque;

    if (a->payload) {
        g_byte_array_unref(a->payload);
    }
    g_free(a);
}

static void set_in_flight(const WsmMsg *msg, bool value)
{
    Image *im = &image[msg->disk];
    unsigned first = msg->offset / BLOCK;

    for (unsigned b = 0; b < DIV_ROUND_UP(msg->bytes, BLOCK); b++) {
        /* At most once */
        g_assert_true(im->in_flight[first + b] != value);
        im->in_flight[first + b] = value;
    }
}

static void prepare_answer(unsigned channel, const WsmMsg *msg, WsmMsgType type)
{
    Answer *a = g_new0(Answer, 1);

    a->channel = channel;
    a->msg = *msg;
    a->msg.type = type;
    a->msg.length = 0;
    set_in_flight(msg, true);
    g_queue_push_tail(&answers, a);
}

static void on_block(unsigned channel, const WsmMsg *msg,
                     const uint8_t *payload)
{
    Image *im = &image[msg->disk];
    bool data = msg->type == WSM_MSG_DATA;

    /* The urgent channel has nothing that was not asked for */
    g_assert_true(channel > 0 || frozen);
    im->pulled += channel ? 0 : msg->bytes;
    *(data ? &im->sent : &im->zero) += msg->bytes;
    for (uint64_t at = 0; at < msg->bytes; at += BLOCK) {
        unsigned block = (msg->offset + at) / BLOCK;
        int64_t bytes = bytes_of(msg->disk, block);
        uint8_t *to = im->data + (int64_t)block * BLOCK;

        if (frozen && !im->missing[block]) {
            continue;
        }
        im->missing[block] = false;
        if (data) {
            memcpy(to, payload + at, bytes);
        } else {
            memset(to, 0, bytes);
        }
    }
    prepare_answer(channel, msg, WSM_MSG_ACK);
}

static void on_hash(unsigned channel, const WsmMsg *msg)
{
    Image *im = &image[msg->disk];
    size_t size = DIV_ROUND_UP(msg->bytes, BLOCK) * WSM_HASH_SIZE;
    Answer *a;

    g_assert_true(channel > 0 && !frozen);
    im->hashed += msg->bytes;
    prepare_answer(channel, msg, WSM_MSG_HASHES);
    a = g_queue_peek_tail(&answers);
    if (!buffer_is_zero(im->data + msg->offset, msg->bytes)) {
        a->msg.length = size;
        a->payload = g_byte_array_new();
        g_byte_array_set_size(a->payload, size);
        wsm_hash_blocks(im->data + msg->offset, msg->bytes, BLOCK,
                        a->payload->data);
    }
}

static void on_sync(const WsmMsg *msg)
{
    WsmMsg ack = *msg;

    ack.type = WSM_MSG_SYNC_ACK;
    ack.bytes = 0;
    for (unsigned d = 0; d < DISKS; d++) {
        for (unsigned b = 0; b < blocks_of(d); b++) {
            /* Not before all was answered */
            g_assert_false(image[d].in_flight[b]);
            g_assert_false(image[d].missing[b]);
        }
    }
    peer_send(fd[0], &ack, NULL);
}

static void break_channel(unsigned channel)
{
    for (unsigned i = answers.length; i-- > 0; ) {
        Answer *a = g_queue_peek_nth(&answers, i);

        if (a->channel == channel) {
            g_queue_pop_nth(&answers, i);
            set_in_flight(&a->msg, false);
            answer_free(a);
        }
    }
    close(fd[channel]);
    fd[channel] = -1;
}

static void reconnect(void)
{
    unsigned channel;
    int new = target_welcome(&channel);

    if (fd[channel] >= 0) {
        closed++;
        break_channel(channel);
    }
    fd[channel] = new;
}

static bool is_readable(unsigned channel)
{
    char c;
    ssize_t n;

    if (fd[channel] < 0) {
        return false;
    }
    n = RETRY_ON_EINTR(recv(fd[channel], &c, 1, MSG_PEEK | MSG_DONTWAIT));
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        closed++;
        break_channel(channel);
    }
    return n > 0;
}

/* The next message on a channel, if there is one */
static bool receive(unsigned channel)
{
    static uint8_t payload[WSM_MAX_DATA];
    WsmMsg msg;

    if (!is_readable(channel)) {
        return false;
    }
    msg = target_recv(fd[channel], channel, payload, sizeof(payload));
    g_assert_cmpint(msg.epoch, ==, frozen);
    switch (msg.type) {
    case WSM_MSG_DATA:
    case WSM_MSG_ZERO:
        received++;
        on_block(channel, &msg, payload);
        break;
    case WSM_MSG_HASH:
        received++;
        on_hash(channel, &msg);
        break;
    case WSM_MSG_SYNC:
        on_sync(&msg);
        break;
    default:
        /* After the handover, on a new connection */
        g_assert_true(msg.type == WSM_MSG_GO || msg.type == WSM_MSG_POINT);
        break;
    }
    return true;
}

static void answer(unsigned n)
{
    Answer *a = g_queue_pop_nth(&answers, n);

    set_in_flight(&a->msg, false);
    peer_send(fd[a->channel], &a->msg, a->payload ? a->payload->data : NULL);
    answer_free(a);
}

/* All that comes, answered at once */
static void serve(void)
{
    if (target_is_asked()) {
        reconnect();
    }
    for (unsigned i = 0; i < CHANNELS; i++) {
        while (receive(i)) {
            while (answers.length) {
                answer(0);
            }
        }
    }
    target_poll(INT64_MAX);
}

static void serve_pass(void)
{
    target_poll_until((serve(), wsm_has_reached(&o.s->milestones,
                                                frozen ? WSM_ALL_THERE
                                                       : WSM_PASS_DONE)));
    g_assert_cmpint(answers.length, ==, 0);
}

static void run_pass(void)
{
    origin_begin_pass(&o);
    serve_pass();
}

/* Nothing comes, although it is looked for for a while */
static void expect_silence(void)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        g_assert_true(peer_hears_nothing(fd[i]));
    }
}

/*
 * Begin and end
 */

static void make_disk(unsigned d, unsigned blocks, int64_t cut)
{
    origin_add_disk(&disk[d], d ? "vdb" : "vda", (int64_t)blocks * BLOCK - cut);
    memset(&image[d], 0, sizeof(image[d]));
    image[d].data = g_malloc(disk[d].size);
    memset(image[d].data, 0xee, disk[d].size);
}

/* Disks of @blocks blocks, full of zeroes; the last one is not whole */
static void set_up(unsigned blocks)
{
    frozen = false;
    breaks = received = closed = 0;
    for (unsigned d = 0; d < DISKS; d++) {
        make_disk(d, blocks, d * 3 * BDRV_SECTOR_SIZE);
    }
    origin_init(&o);
}

static void start(void)
{
    origin_start(&o, BULK);
    wsm_source_open_channels(o.s);
    target_welcome_all(fd, CHANNELS);
    origin_await(&o, WSM_WELCOME);
}

static void tear_down(void)
{
    g_assert_cmpint(closed, ==, 0);
    for (unsigned i = 0; i < CHANNELS; i++) {
        if (fd[i] >= 0) {
            break_channel(i);
        }
    }
    origin_destroy(&o);
    for (unsigned d = 0; d < DISKS; d++) {
        origin_remove_disk(&disk[d]);
        g_free(image[d].data);
    }
}

/* As the guest left it before all began */
static void fill(unsigned d, unsigned block, unsigned blocks, uint8_t byte)
{
    int64_t offset = (int64_t)block * BLOCK;

    memset(disk[d].data + offset, byte,
           MIN((int64_t)blocks * BLOCK, disk[d].size - offset));
}

static void fill_randomly(void)
{
    for (unsigned d = 0; d < DISKS; d++) {
        for (unsigned b = 0; b < blocks_of(d); ) {
            unsigned n = MIN(g_test_rand_int_range(1, 30), blocks_of(d) - b);

            fill(d, b, n, one_in(2) ? 0 : g_test_rand_int_range(1, 256));
            b += n;
        }
    }
}

static void freeze(void)
{
    for (unsigned d = 0; d < DISKS; d++) {
        for (unsigned b = 0; b < blocks_of(d); b++) {
            image[d].missing[b] = origin_is_dirty(&o, d, b);
        }
    }
    frozen = true;
    origin_begin_push(&o);
}

static bool is_equal(unsigned d, unsigned block)
{
    int64_t offset = (int64_t)block * BLOCK;

    return !memcmp(disk[d].data + offset, image[d].data + offset,
                   bytes_of(d, block));
}

/* Nothing is in flight: what differs is dirty, or the guest's over there */
static void check(void)
{
    for (unsigned d = 0; d < DISKS; d++) {
        for (unsigned b = 0; b < blocks_of(d); b++) {
            g_assert_false(image[d].in_flight[b]);
            g_assert_true(is_equal(d, b) || image[d].overwritten[b] ||
                          (!frozen && origin_is_dirty(&o, d, b)));
            g_assert_false(frozen && image[d].missing[b]);
        }
    }
}

/* What query-wsm says of it */
static WsmDiskInfo *info_of(WsmInfo *info, unsigned d)
{
    WsmDiskInfoList *l;

    for (l = info->disks; d; d--) {
        l = l->next;
    }
    return l->value;
}

static void check_counters(void)
{
    g_autoptr(WsmInfo) info = g_new0(WsmInfo, 1);

    wsm_source_info(o.s, info);
    for (unsigned d = 0; d < DISKS; d++) {
        WsmDiskInfo *di = info_of(info, d);

        g_assert_cmpstr(di->name, ==, disk[d].name);
        g_assert_cmpint(di->size, ==, disk[d].size);
        g_assert_cmpint(di->sent, ==, image[d].sent);
        g_assert_cmpint(di->zero, ==, image[d].zero);
        g_assert_cmpint(di->compared, ==, image[d].hashed);
        g_assert_cmpint(di->pulled, ==, image[d].pulled);
        g_assert_cmpint(di->dirty, ==, wsm_work_dirty(o.s->work, d));
    }
}

/*
 * One pass
 */

/* Each block once, and in the next pass what was written since */
static void test_pass(void)
{
    uint64_t sent;

    set_up(MOST_BLOCKS);
    fill_randomly();
    start();
    expect_silence();
    run_pass();
    check();
    check_counters();
    for (unsigned d = 0; d < DISKS; d++) {
        g_assert_cmpint(image[d].sent + image[d].zero, ==, disk[d].size);
        g_assert_cmpint(wsm_work_dirty(o.s->work, d), ==, 0);
    }

    received = 0;
    run_pass();
    g_assert_cmpint(received, ==, 0);

    sent = image[1].sent;
    origin_write(&disk[1], MOST_BLOCKS - 1, 1, 0x71);
    origin_write(&disk[1], 7, 2, 0x72);
    run_pass();
    check();
    check_counters();
    g_assert_cmpint(image[1].sent - sent, ==,
                    2 * BLOCK + bytes_of(1, MOST_BLOCKS - 1));
    tear_down();
}

/* Holes are not read; where the image cannot tell they are, and found */
static void test_zeroes(void)
{
    set_up(MOST_BLOCKS);
    fill(0, 64, 20, 0x33);
    disk[1].status_error = -EIO;
    fill(1, 64, 20, 0x34);
    start();
    run_pass();
    check();
    check_counters();
    g_assert_cmpint(image[0].sent, ==, 20 * BLOCK);
    g_assert_cmpint(disk[0].reads, ==, 1);
    /* Looked for in pieces of 256 KiB */
    g_assert_cmpint(image[1].sent, ==, 64 * BLOCK);
    g_assert_cmpint(image[1].zero, ==, disk[1].size - 64 * BLOCK);
    tear_down();
}

/*
 * Before the handover a disk that cannot be read ends the migration.  If that
 * goes on all the same nothing is lost: it is dirty, and read again.
 */
static void test_read_error(void)
{
    set_up(16);
    fill(1, 0, 16, 0x41);
    qatomic_set(&disk[1].read_error, -EIO);
    start();
    origin_begin_pass(&o);
    target_poll_until((serve(), qatomic_read(&disk[1].reads) > 0));
    target_poll_until(origin_has_fatal(&o));
    origin_expect_fatal(&o, "disk 'vdb': cannot read");
    origin_expect_error(&o, "disk 'vdb': cannot read");
    g_assert_false(wsm_has_reached(&o.s->milestones, WSM_PASS_DONE));
    g_assert_cmpint(image[1].sent, ==, 0);
    qatomic_set(&disk[1].read_error, 0);
    serve_pass();
    check();
    check_counters();
    g_assert_cmpint(disk[1].reads, >, 1);
    tear_down();
}

/* It ends at once, whatever it waits for */
static void test_read_error_stop(void)
{
    set_up(16);
    fill(0, 0, 16, 0x41);
    qatomic_set(&disk[0].read_error, -EIO);
    start();
    origin_begin_pass(&o);
    target_poll_until(qatomic_read(&disk[0].reads) > 0);
    wsm_source_stop(o.s);
    tear_down();
}

/*
 * Limits
 */

static void expect_limited(void)
{
    expect_silence();
    g_assert_false(wsm_has_reached(&o.s->milestones, WSM_PASS_DONE));
}

/*
 * Data goes no faster than the lower of the two limits, and at once when that
 * is raised.  Zeroes are not limited.
 */
static void test_bandwidth(void)
{
    set_up(64);
    fill(0, 0, 64, 0x51);
    qatomic_set(&origin_max_bandwidth, 1);
    start();
    origin_begin_pass(&o);
    target_poll_until((serve(), image[1].zero == disk[1].size));
    expect_limited();
    g_assert_cmpint(image[0].sent, ==, 0);
    qatomic_set(&origin_max_bandwidth, 0);
    serve_pass();
    check();

    origin_write(&disk[0], 0, 64, 0x52);
    origin_set(&o, bandwidth, 1);
    qatomic_set(&origin_max_bandwidth, 1 * GiB);
    origin_begin_pass(&o);
    expect_limited();
    /* In this order: the lower one is never high in between */
    qatomic_set(&origin_max_bandwidth, 1);
    origin_set(&o, bandwidth, 1 * GiB);
    expect_limited();
    qatomic_set(&origin_max_bandwidth, 1 * GiB);
    serve_pass();
    check();
    check_counters();
    tear_down();
}

/*
 * The channel breaks, and may be up again, while a range that was read waits
 * until it may go: it goes on the new connection, or on another channel.
 */
static void test_broken_while_limited(void)
{
    set_up(64);
    fill(0, 0, 64, 0x53);
    qatomic_set(&origin_max_bandwidth, 1);
    start();
    wsm_session_enter(&o.session, WSM_PHASE_DISK_PRECOPY);
    origin_begin_pass(&o);
    target_poll_until((serve(), image[1].zero == disk[1].size));
    target_poll_until(qatomic_read(&disk[0].reads) > 0);
    expect_limited();
    for (unsigned i = 1; i < CHANNELS; i++) {
        break_channel(i);
    }
    reconnect();
    reconnect();
    qatomic_set(&origin_max_bandwidth, 0);
    serve_pass();
    check();
    g_assert_cmpint(image[0].sent, ==, disk[0].size);
    g_assert_cmpint(disk[0].reads, >, 1);
    tear_down();
}

static void pull(unsigned d, unsigned block, unsigned blocks)
{
    WsmMsg msg = {
        .type = WSM_MSG_PULL, .epoch = 1, .disk = d,
        .offset = (int64_t)block * BLOCK,
    };

    msg.bytes = MIN((int64_t)blocks * BLOCK,
                    disk[d].size - (int64_t)msg.offset);
    peer_send(fd[0], &msg, NULL);
}

/* What is asked for waits for nothing */
static void expect_pulled(unsigned d, unsigned block)
{
    uint64_t before = image[d].pulled;

    g_assert_true(image[d].missing[block]);
    pull(d, block, 1);
    target_poll_until((serve(), !image[d].missing[block]));
    g_assert_cmpint(image[d].pulled, ==, before + bytes_of(d, block));
    g_assert_true(is_equal(d, block));
}

/* Each sender pushes one range, and then waits until it may push another */
static void test_push_bandwidth(void)
{
    unsigned before;

    set_up(MOST_BLOCKS);
    for (unsigned d = 0; d < DISKS; d++) {
        fill(d, 0, MOST_BLOCKS, 0x61 + d);
    }
    qatomic_set(&origin_max_bandwidth, 1 * GiB);
    qatomic_set(&origin_max_postcopy_bandwidth, 1);
    start();
    freeze();
    target_poll_until((serve(), received > 0));
    do {
        before = received;
        for (unsigned i = 0; i < CHANNELS; i++) {
            peer_hears_nothing(fd[i]);
        }
        serve();
    } while (received > before);
    g_assert_true(image[1].missing[MOST_BLOCKS - 1]);
    expect_pulled(1, MOST_BLOCKS - 1);
    expect_pulled(1, MOST_BLOCKS - 2);
    expect_silence();
    qatomic_set(&origin_max_postcopy_bandwidth, 0);
    serve_pass();
    check();
    check_counters();
    tear_down();
}

/* Before the first, too; and it ends when it is told to */
static void test_push_delay(void)
{
    set_up(16);
    fill(0, 0, 16, 0x61);
    origin_set(&o, x_push_delay, 60 * 60 * 1000);
    start();
    freeze();
    expect_silence();
    expect_pulled(0, 3);
    expect_silence();
    g_assert_cmpint(image[0].sent, ==, BLOCK);
    tear_down();
}

/*
 * Pull
 */

static void test_pull(void)
{
    set_up(64);
    fill(0, 0, 64, 0x71);
    origin_set(&o, x_push_delay, 60 * 60 * 1000);
    start();
    freeze();
    /* All of a range, and only that */
    pull(0, 10, 5);
    target_poll_until((serve(), image[0].sent == 5 * BLOCK));
    expect_silence();
    g_assert_cmpint(image[0].pulled, ==, 5 * BLOCK);
    for (unsigned b = 10; b < 15; b++) {
        g_assert_true(is_equal(0, b) && !origin_is_dirty(&o, 0, b));
    }
    /* What is there need not go again */
    pull(0, 8, 4);
    target_poll_until((serve(), image[0].sent == 7 * BLOCK));
    pull(0, 8, 4);
    expect_silence();
    /* Zeroes are found when they are read */
    pull(1, 60, 4);
    target_poll_until((serve(), image[1].zero > 0));
    g_assert_cmpint(image[1].zero, ==, disk[1].size - 60 * BLOCK);
    check_counters();

    /* The channel breaks: what was not answered is asked for again */
    pull(0, 30, 1);
    target_poll_until(receive(0));
    g_assert_false(origin_is_dirty(&o, 0, 30));
    image[0].missing[30] = true;
    break_channel(0);
    reconnect();
    target_poll_until(origin_is_dirty(&o, 0, 30));
    expect_pulled(0, 30);
    tear_down();
}

/* In post-copy a disk that cannot be read is tried again */
static void test_pull_read_error(void)
{
    set_up(16);
    fill(0, 0, 16, 0x71);
    qatomic_set(&disk[0].read_error, -EIO);
    start();
    freeze();
    pull(0, 5, 1);
    target_poll_until(origin_has_fatal(&o));
    g_assert_cmpint(image[0].sent, ==, 0);
    qatomic_set(&disk[0].read_error, 0);
    serve_pass();
    check();
    check_counters();
    tear_down();
}

/*
 * To compare
 */

/* In blocks from @first on the destination has data, which is compared */
static void compare_from(unsigned d, unsigned first)
{
    BdrvDirtyBitmap *bitmap = wsm_work_start_compare(o.s->work, d,
                                                     &error_abort);
    int64_t offset = (int64_t)first * BLOCK;

    bdrv_set_dirty_bitmap(bitmap, offset, disk[d].size - offset);
}

static void copy_image(unsigned d)
{
    memcpy(image[d].data, disk[d].data, disk[d].size);
}

/*
 * What is equal is not sent.  Holes are not compared, but zeroes of which
 * nobody knew are, on both sides.
 */
static void test_compare(void)
{
    g_autoptr(WsmInfo) info = g_new0(WsmInfo, 1);

    set_up(MOST_BLOCKS);
    fill_randomly();
    memset(disk[1].data, 0, disk[1].size);
    disk[1].status_error = -EIO;
    start();
    for (unsigned d = 0; d < DISKS; d++) {
        copy_image(d);
        compare_from(d, 0);
    }
    run_pass();
    g_assert_cmpint(image[0].sent, ==, 0);
    g_assert_cmpint(image[0].zero + image[0].hashed, ==, disk[0].size);
    g_assert_cmpint(image[1].sent + image[1].zero, ==, 0);
    check();
    check_counters();
    wsm_source_info(o.s, info);
    g_assert_cmpint(info_of(info, 0)->equal, ==, image[0].hashed);
    g_assert_cmpint(info_of(info, 1)->equal, ==, disk[1].size);
    tear_down();
}

/* What differs goes within the same pass, that alone */
static void test_differ(void)
{
    g_autoptr(WsmInfo) info = g_new0(WsmInfo, 1);

    set_up(64);
    fill(0, 0, 64, 0x81);
    disk[1].status_error = -EIO;
    start();
    copy_image(0);
    copy_image(1);
    memset(image[0].data + 20 * BLOCK, 0x82, 2 * BLOCK);
    memset(image[0].data + 63 * BLOCK, 0, BLOCK);
    image[1].data[disk[1].size - 1] = 0x83;
    compare_from(0, 16);
    compare_from(1, 0);
    run_pass();
    check();
    check_counters();
    g_assert_cmpint(image[0].hashed, ==, 48 * BLOCK);
    g_assert_cmpint(image[0].sent, ==, (16 + 3) * BLOCK);
    g_assert_cmpint(image[1].zero, ==, bytes_of(1, 63));
    wsm_source_info(o.s, info);
    g_assert_cmpint(info_of(info, 0)->equal, ==, 45 * BLOCK);
    g_assert_cmpint(info_of(info, 1)->equal, ==, 63 * BLOCK);
    tear_down();
}

/* Between the two it is neither dirty nor lost */
static void test_compare_broken(void)
{
    set_up(16);
    fill(0, 0, 16, 0x91);
    disk[1].status_error = -EIO;
    start();
    copy_image(0);
    copy_image(1);
    compare_from(0, 0);
    compare_from(1, 0);
    origin_begin_pass(&o);
    target_poll_until(receive(1) || receive(2));
    /* It goes on when the channel is back, and is compared once more */
    break_channel(((Answer *)g_queue_peek_head(&answers))->channel);
    while (answers.length) {
        answer(0);
    }
    reconnect();
    serve_pass();
    check();
    g_assert_cmpint(image[0].sent, ==, 0);
    g_assert_cmpint(image[0].hashed + image[1].hashed, >,
                    disk[0].size + disk[1].size);
    tear_down();
}

static void alive_bh(void *opaque)
{
    qatomic_inc((unsigned *)opaque);
}

/*
 * The destination does not take any more, which is found when something is
 * sent: who asks must not ask again, and again, before the receiver has found
 * out that the connection has ended.
 */
static void test_compare_not_sent(void)
{
    unsigned alive = 0;

    set_up(16);
    fill(0, 0, 16, 0x91);
    start();
    copy_image(0);
    compare_from(0, 0);
    for (unsigned i = 1; i < CHANNELS; i++) {
        g_assert_cmpint(shutdown(fd[i], SHUT_RD), ==, 0);
    }
    origin_begin_pass(&o);
    for (unsigned i = 1; i < 4; i++) {
        g_assert_true(wsm_loop_bh(&o.s->loop, alive_bh, &alive));
        target_await(&alive, i);
    }
    g_assert_false(wsm_has_reached(&o.s->milestones, WSM_PASS_DONE));
    for (unsigned i = 1; i < CHANNELS; i++) {
        break_channel(i);
    }
    serve_pass();
    check();
    g_assert_cmpint(image[0].sent, ==, 0);
    g_assert_cmpint(image[0].hashed, ==, disk[0].size);
    tear_down();
}

static void test_compare_limit(void)
{
    set_up(16);
    fill(0, 0, 16, 0x91);
    origin_set(&o, compare_bandwidth, 1);
    start();
    copy_image(0);
    compare_from(0, 0);
    origin_begin_pass(&o);
    target_poll_until((serve(), image[1].zero == disk[1].size));
    expect_limited();
    g_assert_cmpint(image[0].hashed, ==, 0);
    origin_set(&o, compare_bandwidth, 0);
    serve_pass();
    check();
    check_counters();
    tear_down();
}

/* This side's hashes are needed, too */
static void test_compare_read_error(void)
{
    set_up(16);
    fill(0, 0, 16, 0x91);
    qatomic_set(&disk[0].read_error, -EIO);
    start();
    copy_image(0);
    compare_from(0, 0);
    origin_begin_pass(&o);
    target_poll_until((serve(), origin_has_fatal(&o)));
    origin_expect_fatal(&o, "disk 'vda': cannot read");
    qatomic_set(&disk[0].read_error, 0);
    serve_pass();
    check();
    g_assert_cmpint(image[0].sent, ==, 0);
    g_assert_cmpint(image[0].hashed, >=, disk[0].size);
    /* An answer to what was given up already closes the connection */
    closed = 0;
    tear_down();
}

/* The guest writes while it is compared: what it wrote is dirty afterwards */
static void test_compare_written(void)
{
    set_up(16);
    fill(0, 0, 16, 0x91);
    start();
    copy_image(0);
    copy_image(1);
    compare_from(0, 0);
    compare_from(1, 0);
    origin_begin_pass(&o);
    target_poll_until(receive(1) || receive(2));
    for (unsigned d = 0; d < DISKS; d++) {
        origin_write(&disk[d], 3, 1, 0x92);
    }
    serve_pass();
    check();
    run_pass();
    for (unsigned d = 0; d < DISKS; d++) {
        g_assert_cmpint(wsm_work_dirty(o.s->work, d), ==, 0);
        g_assert_true(is_equal(d, 3));
    }
    tear_down();
}

/*
 * Anything at random
 */

static void guest_writes(void)
{
    unsigned d = g_test_rand_int_range(0, DISKS);
    unsigned b = random_block(d);

    origin_write(&disk[d], b, MIN(g_test_rand_int_range(1, 12),
                                  blocks_of(d) - b),
                 one_in(3) ? 0 : g_test_rand_int_range(1, 256));
}

/* At the destination: it reads, or it writes */
static void guest_there(void)
{
    unsigned d = g_test_rand_int_range(0, DISKS);
    unsigned b = random_block(d);
    WsmMsg have = {
        .type = WSM_MSG_HAVE, .epoch = 1, .disk = d,
        .offset = (int64_t)b * BLOCK, .bytes = bytes_of(d, b),
    };

    if (fd[0] < 0) {
        return;
    }
    if (one_in(2)) {
        pull(d, b, MIN(g_test_rand_int_range(1, 8), blocks_of(d) - b));
        return;
    }
    image[d].missing[b] = false;
    image[d].overwritten[b] = true;
    memset(image[d].data + (int64_t)b * BLOCK, 0xdd, bytes_of(d, b));
    if (!one_in(4)) {
        peer_send(fd[0], &have, NULL);
    }
}

static void random_step(void)
{
    unsigned c = g_test_rand_int_range(0, CHANNELS);

    switch (g_test_rand_int_range(0, 8)) {
    case 0:
        if (!frozen) {
            guest_writes();
        } else if (one_in(4)) {
            guest_there();
        }
        break;
    case 1:
        if (breaks && fd[c] >= 0 && one_in(20)) {
            breaks--;
            break_channel(c);
        }
        break;
    case 2:
        if (target_is_asked()) {
            reconnect();
        }
        break;
    case 3:
    case 4:
        if (answers.length) {
            answer(g_test_rand_int_range(0, answers.length));
        }
        break;
    default:
        receive(c);
        break;
    }
}

static void random_pass(WsmMilestone over)
{
    int64_t deadline = target_deadline();

    for (int i = 0; !wsm_has_reached(&o.s->milestones, over); i++) {
        random_step();
        if (i % 8 == 0) {
            target_poll(deadline);
        }
    }
}

static void random_build(unsigned d)
{
    unsigned first = random_block(d);

    for (unsigned b = first; b < blocks_of(d); b++) {
        if (!one_in(5)) {
            memcpy(image[d].data + (int64_t)b * BLOCK,
                   disk[d].data + (int64_t)b * BLOCK, bytes_of(d, b));
        }
    }
    compare_from(d, first);
}

static void random_migration(bool build)
{
    set_up(g_test_rand_int_range(2, MOST_BLOCKS));
    fill_randomly();
    breaks = 4;
    start();
    wsm_session_enter(&o.session, WSM_PHASE_DISK_PRECOPY);
    for (unsigned d = 0; build && d < DISKS; d++) {
        random_build(d);
    }
    for (int i = g_test_rand_int_range(1, 4); i; i--) {
        origin_begin_pass(&o);
        random_pass(WSM_PASS_DONE);
        check();
    }
    guest_writes();
    freeze();
    random_pass(WSM_ALL_THERE);
    check();
    g_assert_cmpint(wsm_work_all_dirty(o.s->work), ==, 0);
    origin_expect_fatal(&o, NULL);
    tear_down();
}

static void test_random(void)
{
    for (int i = 0; i < 6; i++) {
        random_migration(i % 2);
    }
}

/* It ends in the middle of anything */
static void test_random_stop(void)
{
    for (int i = 0; i < 10; i++) {
        set_up(MOST_BLOCKS);
        fill_randomly();
        breaks = 2;
        start();
        if (one_in(2)) {
            random_build(0);
        }
        if (one_in(3)) {
            freeze();
        } else {
            origin_begin_pass(&o);
        }
        for (int n = g_test_rand_int_range(0, 200); n; n--) {
            random_step();
        }
        tear_down();
    }
}

/*
 * disk.c: what else there is to a disk
 */

static bool is_blocked(BlockDriverState *bs, Error **errp)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_MIRROR_SOURCE, errp);
}

static void test_open(void)
{
    OriginDisk mem;
    WsmSourceDisk d = { .name = "mem" };
    Error *reason = NULL, *err = NULL;
    BlockBackend *other;

    origin_add_disk(&mem, "vda", 16 * BLOCK);
    mem.allocated = 5 * BLOCK;
    error_setg(&reason, "it moves");
    g_assert_true(wsm_source_disk_open(&d, mem.bs, reason, &error_abort));
    g_assert_true(d.bs == mem.bs && blk_bs(d.blk) == mem.bs);
    g_assert_cmpint(d.allocated, ==, 5 * BLOCK);
    /* No job, and nobody resizes it; but the guest writes */
    g_assert_true(is_blocked(mem.bs, &err));
    disks_error(g_steal_pointer(&err), "it moves");
    other = blk_new(qemu_get_aio_context(), BLK_PERM_RESIZE, BLK_PERM_ALL);
    g_assert_cmpint(blk_insert_bs(other, mem.bs, &err), <, 0);
    error_free_or_abort(&err);
    blk_unref(other);
    origin_write(&mem, 3, 1, 0x77);
    wsm_nodes_free(d.nodes);
    blk_unref(d.blk);
    g_assert_false(is_blocked(mem.bs, NULL));

    /* It is not known how much is allocated: no harm */
    mem.allocated = -ENOTSUP;
    d = (WsmSourceDisk) { .name = "mem" };
    g_assert_true(wsm_source_disk_open(&d, mem.bs, reason, &error_abort));
    g_assert_cmpint(d.allocated, ==, -ENOTSUP);
    wsm_nodes_free(d.nodes);
    blk_unref(d.blk);

    /* Somebody may resize it: then it is not opened, and nothing is left */
    other = blk_new(qemu_get_aio_context(), BLK_PERM_RESIZE, BLK_PERM_ALL);
    blk_insert_bs(other, mem.bs, &error_abort);
    d = (WsmSourceDisk) { .name = "mem" };
    g_assert_false(wsm_source_disk_open(&d, mem.bs, reason, &err));
    error_free_or_abort(&err);
    g_assert_null(d.blk);
    g_assert_null(d.nodes);
    blk_unref(other);
    error_free(reason);
    origin_remove_disk(&mem);
}

/* Backing files count, too: what they have is sent as well */
static void test_allocated(void)
{
    g_autofree char *base = disks_create("base", "qcow2", NULL);
    g_autofree char *top = disks_path("top");
    WsmSourceDisk d = { .name = "top" };
    Error *reason = NULL;
    BlockBackend *blk;
    int64_t alone;

    blk = disks_open(base, "qcow2", BDRV_O_RDWR);
    for (int i = 0; i < 8; i++) {
        disks_write(blk, i * 64 * KiB);
    }
    error_setg(&reason, "it moves");
    g_assert_true(wsm_source_disk_open(&d, blk_bs(blk), reason, &error_abort));
    alone = d.allocated;
    g_assert_cmpint(alone, >, 0);
    wsm_nodes_free(d.nodes);
    blk_unref(d.blk);
    blk_unref(blk);

    bdrv_img_create(top, "qcow2", base, "qcow2", NULL, DISK_SIZE, 0, true,
                    &error_abort);
    blk = disks_open(top, "qcow2", BDRV_O_RDWR);
    d = (WsmSourceDisk) { .name = "top" };
    g_assert_true(wsm_source_disk_open(&d, blk_bs(blk), reason, &error_abort));
    g_assert_cmpint(d.allocated, >, alone);
    wsm_nodes_free(d.nodes);
    blk_unref(d.blk);
    blk_unref(blk);
    error_free(reason);
}

static void test_info(void)
{
    WsmSourceDisk d = { .name = "vda", .size = 16 * BLOCK };
    WsmDiskDesc desc = { .path = (char *)"/dev/vda" };
    WsmBasis basis = {
        .kind = WSM_BASIS_KIND_FULL, .reason = (char *)"nothing there",
    };
    WsmReq req = { .bytes = BLOCK };
    WsmDiskInfo *info;

    info = wsm_source_disk_info(&d, &desc, 3 * BLOCK, false);
    g_assert_cmpint(info->dirty, ==, 3 * BLOCK);
    g_assert_cmpint(info->missing, ==, 0);
    g_assert_null(info->basis);
    qapi_free_WsmDiskInfo(info);

    /* DATA and ZERO, before the freeze, pushed and pulled */
    wsm_source_disk_sent(&d, &req, 100);
    req.bytes = 2 * BLOCK;
    req.kind = WSM_REQ_ZERO;
    wsm_source_disk_sent(&d, &req, 0);
    req.bytes = 4 * BLOCK;
    req.epoch = 1;
    wsm_source_disk_sent(&d, &req, 0);
    req.bytes = 8 * BLOCK;
    req.kind = WSM_REQ_DATA;
    req.pull = true;
    wsm_source_disk_sent(&d, &req, 8 * BLOCK);
    wsm_source_disk_compared(&d, &req, 3 * BLOCK);
    d.basis = &basis;
    info = wsm_source_disk_info(&d, &desc, 3 * BLOCK, true);
    g_assert_cmpstr(info->path, ==, "/dev/vda");
    g_assert_cmpint(info->size, ==, 16 * BLOCK);
    g_assert_cmpint(info->sent, ==, 9 * BLOCK);
    g_assert_cmpint(info->packed, ==, 100 + 8 * BLOCK);
    g_assert_cmpint(info->zero, ==, 6 * BLOCK);
    g_assert_cmpint(info->pushed, ==, 4 * BLOCK);
    g_assert_cmpint(info->pulled, ==, 8 * BLOCK);
    g_assert_cmpint(info->compared, ==, 8 * BLOCK);
    g_assert_cmpint(info->equal, ==, 5 * BLOCK);
    g_assert_cmpint(info->missing, ==, 3 * BLOCK);
    g_assert_cmpint(info->basis->kind, ==, WSM_BASIS_KIND_FULL);
    g_assert_cmpstr(info->basis->reason, ==, "nothing there");
    g_assert_true(info->basis != &basis);
    qapi_free_WsmDiskInfo(info);
}

int main(int argc, char **argv)
{
    int ret;

    origin_init_tests(&argc, &argv);
    g_test_add_func("/wsm/source-send/pass", test_pass);
    g_test_add_func("/wsm/source-send/zeroes", test_zeroes);
    g_test_add_func("/wsm/source-send/read-error", test_read_error);
    g_test_add_func("/wsm/source-send/read-error-stop", test_read_error_stop);
    g_test_add_func("/wsm/source-send/bandwidth", test_bandwidth);
    g_test_add_func("/wsm/source-send/broken-while-limited",
                    test_broken_while_limited);
    g_test_add_func("/wsm/source-send/push-bandwidth", test_push_bandwidth);
    g_test_add_func("/wsm/source-send/push-delay", test_push_delay);
    g_test_add_func("/wsm/source-send/pull", test_pull);
    g_test_add_func("/wsm/source-send/pull-read-error", test_pull_read_error);
    g_test_add_func("/wsm/source-send/compare", test_compare);
    g_test_add_func("/wsm/source-send/differ", test_differ);
    g_test_add_func("/wsm/source-send/compare-broken", test_compare_broken);
    g_test_add_func("/wsm/source-send/compare-not-sent",
                    test_compare_not_sent);
    g_test_add_func("/wsm/source-send/compare-limit", test_compare_limit);
    g_test_add_func("/wsm/source-send/compare-read-error",
                    test_compare_read_error);
    g_test_add_func("/wsm/source-send/compare-written", test_compare_written);
    g_test_add_func("/wsm/source-send/random", test_random);
    g_test_add_func("/wsm/source-send/random-stop", test_random_stop);
    g_test_add_func("/wsm/source-disk/open", test_open);
    g_test_add_func("/wsm/source-disk/allocated", test_allocated);
    g_test_add_func("/wsm/source-disk/info", test_info);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
