/*
 * Unit tests of migration/wsm/dest/dest.c and sync.c
 *
 * A whole destination with a real image and real channels.  The source is this
 * thread, byte by byte, and QEMU's migration as well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <poll.h>
#include <glib/gstdio.h>
#include "block/aio-wait.h"
#include "crypto/init.h"
#include "io/channel-socket.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/wsm/dest/dest.h"
#include "migration/wsm/image/map-file.h"
#include "migration/wsm/image/record-file.h"
#include "migration/wsm/wire/runs.h"
#include "wsm-disks.h"
#include "wsm-flaky.h"
#include "wsm-peer.h"
#include "wsm-set.h"
#include "wsm-warnings.h"

#define BLOCK           4096
#define CHANNELS        2
#define SOON_S          20              /* on any machine */

enum { OLD = 0xee, SOURCE = 0x55, GUEST = 0x99 };

/*
 * What the destination asks of migration
 */

static MigrationIncomingState incoming;

MigrationIncomingState *migration_incoming_get_current(void)
{
    return &incoming;
}

bool migrate_postcopy_ram(void)
{
    return false;
}

void migrate_set_state(MigrationStatus *state, MigrationStatus old_state,
                       MigrationStatus new_state)
{
    g_assert_not_reached();
}

/*
 * Steps
 */

static WsmDest *d;
static WsmSession session;
static WsmOptionsStore options;
static WsmImages images;
static char *path;
static BlockBackend *guest;
static WsmDestConns limits;     /* what wsm-peer.h wants of it */
static WsmStart start;          /* of @limits */
static int64_t disk_size = DISK_SIZE;
static WsmDiskDesc desc;
static int stream;              /* the source's end of the main stream */
static unsigned runs, taken_back;       /* how often */

#define AWAIT(cond) do {                                                \
        int64_t until_ = g_get_monotonic_time() +                       \
                         SOON_S * G_USEC_PER_SEC;                       \
        while (!(cond)) {                                               \
            g_assert_cmpint(g_get_monotonic_time(), <, until_);         \
            aio_poll(qemu_get_aio_context(), false);                    \
            g_usleep(100);                                              \
        }                                                               \
    } while (0)

static void tell(WsmRole role, const QemuUUID *id, WsmPhase phase)
{
}

static void count_taken_back(void *opaque)
{
    g_assert_true(qemu_in_main_thread());
    g_assert_true(opaque == &taken_back);
    taken_back++;
}

static OnOffAuto crash_safe = ON_OFF_AUTO_OFF;  /* the user's wish */
static WsmCrashSafe maps_state;
static unsigned maps_told;

static void note_maps(void *opaque, WsmCrashSafe state, const char *why)
{
    g_assert_true(opaque == &taken_back);
    g_assert_cmpint(!why, ==, state == WSM_CRASH_SAFE_ON);
    maps_state = state;
    maps_told++;
}

static const WsmDestOps ops = {
    .taken_back = count_taken_back,
    .maps = note_maps,
};

static void let_run(void *opaque)
{
    g_assert_true(qemu_in_main_thread());
    g_assert_true(opaque == &runs);
    runs++;
}

static void fill(uint8_t c)
{
    g_autofree char *all = g_malloc(DISK_SIZE);

    memset(all, c, DISK_SIZE);
    g_assert_true(g_file_set_contents(path, all, DISK_SIZE, NULL));
}

static uint8_t byte_of(unsigned block)
{
    uint8_t c;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(pread(fd, &c, 1, block * BLOCK), ==, 1);
    close(fd);
    return c;
}

static void open_stream(void)
{
    QIOChannelSocket *sioc;
    int fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    sioc = qio_channel_socket_new_fd(fd[1], &error_abort);
    incoming.from_src_file = qemu_file_new_input(QIO_CHANNEL(sioc));
    object_unref(OBJECT(sioc));
    stream = fd[0];
}

/* What the source tells; a new copy each time */
/* For tests of memory by reference: what the source can, and sets of ours */
static uint32_t features;
static WsmTemplates *own;

static WsmStart start_now(uint64_t size)
{
    WsmStart s = {
        .session = { .data = { 0xab } }, .version = WSM_PROTOCOL_VERSION,
        .oldest = WSM_PROTOCOL_OLDEST, .channels = CHANNELS,
        .granularity = BLOCK, .ndisks = 1, .disk = g_new0(WsmDiskDesc, 1),
        .features = features, .required = features & WSM_FEATURE_MEMORY,
    };

    s.disk[0].path = g_strdup("/dev/vda");
    s.disk[0].name = g_strdup("their-vda");
    s.disk[0].address = g_strdup("");
    s.disk[0].file = g_strdup("over-there");
    s.disk[0].marks = g_ptr_array_new_with_free_func(g_free);
    s.disk[0].size = size;
    s.disk[0].wish = WSM_BASIS_KIND_FULL;
    return s;
}

static void set_up_as(uint64_t size, const char *refusal)
{
    WsmStart s = start_now(size);

    flaky = (Flaky) {};
    runs = taken_back = 0;
    path = disks_path("image");
    fill(OLD);
    guest = disks_open(path, "test-flaky", BDRV_O_RDWR);
    disks_plug("vda", guest);
    wsm_images_init(&images);
    wsm_options_init(&options);
    options.options->crash_safe = crash_safe;
    maps_told = 0;
    wsm_session_init(&session, tell);
    open_stream();

    start = s;
    desc.size = size;
    start.disk = &desc;
    limits.start = &start;
    limits.disk_size = &disk_size;

    d = wsm_dest_new(&session, &options, &images, &s, &ops, &taken_back);
    g_assert_null(s.disk);
    g_assert_cmpint(wsm_session_phase(&session), ==, WSM_PHASE_SETUP);
    wsm_dest_set_templates(d, own, NULL);
    wsm_dest_start(d, refusal);
}

static void set_up(void)
{
    set_up_as(DISK_SIZE, NULL);
}

static bool map_exists(void)
{
    g_autofree char *map = wsm_map_path(path);

    return g_file_test(map, G_FILE_TEST_EXISTS);
}

static void tear_down(void)
{
    wsm_dest_stop(d);
    wsm_dest_stop(d);
    wsm_dest_free(d);
    qemu_fclose(incoming.from_src_file);
    close(stream);
    /* Without a filter */
    g_assert_cmpstr(blk_bs(guest)->drv->format_name, ==, "test-flaky");
    wsm_images_close(&images);
    g_ptr_array_unref(images.list);
    disks_unplug("vda");
    blk_unref(guest);
    wsm_record_remove(path, &error_abort);
    g_assert_false(map_exists());
    wsm_options_destroy(&options);
    wsm_session_destroy(&session);
    g_unlink(path);
    g_free(path);
    warnings_expect_none();
}

static WsmImage *image(void)
{
    g_autoptr(GArray) all = wsm_disk_list();

    return wsm_image_get(&images, &g_array_index(all, WsmDisk, 0));
}

/* It may come after what it says to the other side */
static void expect_phase(WsmPhase phase)
{
    AWAIT(wsm_session_phase(&session) == phase);
}

/* A connection; returns our end, or -1 if nobody takes it */
static int try_connect(void)
{
    struct timeval patience = { .tv_sec = SOON_S };
    QIOChannelSocket *sioc;
    int fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    sioc = qio_channel_socket_new_fd(fd[1], &error_abort);
    if (!wsm_dest_take_channel(d, QIO_CHANNEL(sioc))) {
        object_unref(OBJECT(sioc));
        close(fd[0]);
        return -1;
    }
    return fd[0];
}

static int say_hello(unsigned channel)
{
    int fd = try_connect();

    peer_send_hello(fd, peer_good_hello(&limits, channel));
    return fd;
}

/* In good order: nothing is lost that is on its way to us */
static void hang_up(int fd)
{
    char c;

    shutdown(fd, SHUT_WR);
    while (RETRY_ON_EINTR(read(fd, &c, 1)) > 0) {
        /* the other end closes it */
    }
    close(fd);
}

static bool has_something(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    return poll(&pfd, 1, 0) == 1;
}

/* The main thread has much to do meanwhile */
static WsmMsg expect(int fd, WsmMsgType type)
{
    uint8_t payload[WSM_MAX_TEXT + 1] = {};
    WsmMsg msg;

    AWAIT(has_something(fd));
    msg = peer_recv(fd, &limits, payload, WSM_MAX_TEXT);
    if (msg.type != type) {
        g_error("%s instead of %s: %s", wsm_msg_name(msg.type),
                wsm_msg_name(type), payload);
    }
    return msg;
}

static void expect_text(int fd, WsmMsgType type, const char *text)
{
    uint8_t payload[WSM_MAX_TEXT + 1] = {};
    WsmMsg msg;

    AWAIT(has_something(fd));
    msg = peer_recv(fd, &limits, payload, WSM_MAX_TEXT);
    g_assert_cmpint(msg.type, ==, type);
    g_assert_nonnull(strstr((char *)payload, text));
}

static void expect_nothing(int fd)
{
    int64_t until = g_get_monotonic_time() + G_USEC_PER_SEC / 10;

    while (g_get_monotonic_time() < until) {
        g_assert_false(has_something(fd));
        aio_poll(qemu_get_aio_context(), false);
        g_usleep(100);
    }
}

static void expect_end(int fd)
{
    AWAIT(has_something(fd));
    g_assert_true(peer_has_ended(fd));
    close(fd);
}

static int open_urgent(void)
{
    int fd = say_hello(0);

    peer_expect_welcome(fd);
    return fd;
}

/* The first time, in setup */
static int open_first(void)
{
    int fd = open_urgent();

    expect(fd, WSM_MSG_BASIS);
    expect_phase(WSM_PHASE_DISK_PRECOPY);
    return fd;
}

static int open_bulk(void)
{
    int fd = say_hello(1);

    peer_expect_welcome(fd);
    return fd;
}

static void say(int fd, WsmMsgType type, uint32_t epoch, uint64_t offset)
{
    peer_send(fd, &(WsmMsg) { .type = type, .epoch = epoch, .offset = offset },
              NULL);
}

static void send_block(int fd, uint32_t epoch, unsigned block)
{
    uint8_t data[BLOCK];
    WsmMsg msg = {
        .type = WSM_MSG_DATA, .epoch = epoch, .offset = block * BLOCK,
        .bytes = BLOCK, .length = BLOCK,
    };

    memset(data, SOURCE, sizeof(data));
    peer_send(fd, &msg, data);
    msg = expect(fd, WSM_MSG_ACK);
    g_assert_cmpint(msg.offset, ==, block * BLOCK);
}

static int64_t sync_with(int fd, uint32_t epoch, uint64_t serial)
{
    WsmMsg msg;

    say(fd, WSM_MSG_SYNC, epoch, serial);
    msg = expect(fd, WSM_MSG_SYNC_ACK);
    g_assert_cmpint(msg.epoch, ==, epoch);
    g_assert_cmpint(msg.offset, ==, serial);
    return msg.bytes;
}

/* The package: @count blocks from @first on are missing; the guest could run */
static void freeze(unsigned first, unsigned count)
{
    g_autoptr(GByteArray) missing = g_byte_array_new();
    WsmRunsEncoder e;

    wsm_session_enter(&session, WSM_PHASE_FREEZE);
    wsm_runs_encode_init(&e, missing);
    if (count) {
        wsm_runs_encode(&e, first, count);
    }
    g_assert_cmpint(missing->len, <=, wsm_dest_max_runs(d, 0));
    g_assert_true(wsm_dest_set_missing(d, 0, missing->data, missing->len,
                                       &error_abort));
    g_assert_true(wsm_dest_seal(d, &error_abort));
}

static void load(void)
{
    g_assert_true(wsm_dest_loaded(d, let_run, &runs, &error_abort));
}

/* All up to the moment at which the guest runs here */
static int hand_over(unsigned first, unsigned count)
{
    int fd = open_first();

    g_assert_cmpint(sync_with(fd, 0, 1), ==, 0);
    freeze(first, count);
    load();
    expect(fd, WSM_MSG_READY);
    g_assert_cmpint(runs, ==, 0);
    say(fd, WSM_MSG_GO, 1, 0);
    AWAIT(runs);
    expect_phase(WSM_PHASE_POSTCOPY);
    return fd;
}

static void check_record(WsmImageState state)
{
    g_autoptr(WsmRecord) record = NULL;

    wsm_record_load(path, &record, &error_abort);
    g_assert_cmpint(record ? record->state : WSM_IMAGE_STATE_CURRENT, ==,
                    state);
}

/* It goes without the main thread, in which the guest's devices are */
static void await_no_record(void)
{
    int64_t until = g_get_monotonic_time() + SOON_S * G_USEC_PER_SEC;

    while (wsm_record_exists(path)) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_usleep(100);
    }
}

static void expect_error(const char *text)
{
    g_autofree char *error = NULL;

    AWAIT(({
        bool there;

        qemu_mutex_lock(&session.lock);
        there = session.error;
        qemu_mutex_unlock(&session.lock);
        there;
    }));
    error = g_strdup(session.error);
    if (!strstr(error, text)) {
        g_error("'%s' is not in '%s'", text, error);
    }
    warnings_expect(text);
}

/*
 * All goes well
 */

static void test_migration(void)
{
    int fd, bulk;

    set_up();
    g_assert_cmpint(wsm_dest_disks(d), ==, 1);
    g_assert_null(wsm_dest_refusal(d));
    check_record(WSM_IMAGE_STATE_INCOMPLETE);
    fd = open_first();
    bulk = open_bulk();
    send_block(bulk, 0, 3);
    g_assert_cmpint(byte_of(3), ==, SOURCE);
    g_assert_cmpint(sync_with(fd, 0, 7), ==, 0);
    expect_phase(WSM_PHASE_RAM_PRECOPY);
    freeze(10, 2);
    g_assert_false(wsm_dest_is_in_use(d));
    load();
    expect(fd, WSM_MSG_READY);
    g_assert_false(wsm_dest_is_needed(d));

    say(fd, WSM_MSG_GO, 1, 0);
    AWAIT(runs);
    expect_phase(WSM_PHASE_POSTCOPY);
    g_assert_true(wsm_dest_is_in_use(d));
    g_assert_true(wsm_dest_is_needed(d));
    g_assert_false(wsm_dest_may_end(d));
    g_assert_cmpint(sync_with(fd, 1, 8), ==, 2 * BLOCK);
    send_block(bulk, 1, 10);
    g_assert_cmpint(sync_with(fd, 1, 9), ==, BLOCK);
    send_block(bulk, 1, 11);
    AWAIT(wsm_dest_is_complete(d));
    g_assert_false(wsm_dest_is_in_use(d));
    AWAIT(wsm_dest_may_end(d));
    g_assert_false(wsm_dest_is_needed(d));
    g_assert_false(wsm_dest_was_told(d));

    g_assert_cmpint(sync_with(fd, 1, 10), ==, 0);
    AWAIT(wsm_dest_was_told(d));
    check_record(WSM_IMAGE_STATE_CURRENT);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_CURRENT);
    g_assert_true(wsm_dest_end(d));
    g_assert_cmpint(byte_of(10), ==, SOURCE);
    g_assert_cmpint(byte_of(12), ==, OLD);
    hang_up(fd);
    hang_up(bulk);
    tear_down();
}

/* The source never comes back: what is here is current all the same */
static void test_alone(void)
{
    int fd;

    set_up();
    fd = hand_over(0, 0);
    hang_up(fd);
    AWAIT(image()->state == WSM_IMAGE_STATE_CURRENT);
    check_record(WSM_IMAGE_STATE_CURRENT);
    g_assert_true(wsm_dest_may_end(d));
    g_assert_false(wsm_dest_was_told(d));
    g_assert_false(wsm_dest_is_needed(d));
    tear_down();
}

/*
 * What is said may be lost
 */

/* READY is said again on each connection, until GO has come; that may repeat */
static void test_said_again(void)
{
    int fd;

    set_up();
    fd = open_first();
    sync_with(fd, 0, 1);
    freeze(10, 1);
    hang_up(fd);
    load();
    fd = open_urgent();
    expect(fd, WSM_MSG_READY);
    hang_up(fd);
    fd = open_urgent();
    expect(fd, WSM_MSG_READY);
    say(fd, WSM_MSG_GO, 1, 0);
    AWAIT(runs);
    say(fd, WSM_MSG_GO, 1, 0);
    hang_up(fd);
    fd = open_urgent();
    say(fd, WSM_MSG_GO, 1, 0);
    g_assert_cmpint(sync_with(fd, 1, 2), ==, BLOCK);
    g_assert_cmpint(runs, ==, 1);
    hang_up(fd);
    fd = open_bulk();
    send_block(fd, 1, 10);
    AWAIT(wsm_dest_may_end(d));
    hang_up(fd);
    tear_down();
}

static void count_cb(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    (*(unsigned *)opaque)++;
}

/* What the guest waits for is asked for again */
static void test_asked_again(void)
{
    uint8_t buf[BLOCK] = {};
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, BLOCK);
    unsigned done = 0;
    int fd;

    set_up();
    fd = hand_over(10, 1);
    blk_aio_preadv(guest, 10 * BLOCK, &qiov, 0, count_cb, &done);
    expect(fd, WSM_MSG_PULL);
    hang_up(fd);
    fd = open_urgent();
    expect(fd, WSM_MSG_PULL);
    send_block(fd, 1, 10);
    AWAIT(done);
    g_assert_cmphex(buf[17], ==, SOURCE);
    AWAIT(wsm_dest_may_end(d));
    hang_up(fd);
    tear_down();
}

/*
 * Durable
 */

/* Before the freeze: SYNC is answered when all is flushed, or with why not */
static void test_sync(void)
{
    unsigned before;
    int fd;

    set_up();
    fd = open_first();
    before = qatomic_read(&flaky.flushes);
    qatomic_set(&flaky.hold, true);
    say(fd, WSM_MSG_SYNC, 0, 5);
    AWAIT(qatomic_read(&flaky.waiting));
    expect_nothing(fd);
    expect_phase(WSM_PHASE_DISK_PRECOPY);
    qatomic_set(&flaky.ret, -ENOSPC);
    qatomic_set(&flaky.hold, false);
    g_assert_cmpint(expect(fd, WSM_MSG_SYNC_ACK).bytes, ==, ENOSPC);
    g_assert_cmpint(qatomic_read(&flaky.flushes), >, before);
    expect_phase(WSM_PHASE_DISK_PRECOPY);
    qatomic_set(&flaky.ret, 0);
    g_assert_cmpint(sync_with(fd, 0, 6), ==, 0);
    expect_phase(WSM_PHASE_RAM_PRECOPY);
    g_assert_cmpint(sync_with(fd, 0, 7), ==, 0);
    expect_phase(WSM_PHASE_RAM_PRECOPY);
    hang_up(fd);
    tear_down();
}

/*
 * In post-copy: no flush before all is there, no filter goes before that is
 * over, no record while there is a filter, and no answer before all that
 */
static void test_sync_end(void)
{
    static const uint8_t block[BLOCK];
    unsigned before;
    int fd, bulk;

    set_up();
    fd = hand_over(10, 1);
    bulk = open_bulk();
    before = qatomic_read(&flaky.flushes);
    g_assert_cmpint(sync_with(fd, 1, 2), ==, BLOCK);
    g_assert_cmpint(qatomic_read(&flaky.flushes), ==, before);

    qatomic_set(&flaky.hold, true);
    send_block(bulk, 1, 10);
    say(fd, WSM_MSG_SYNC, 1, 3);
    AWAIT(qatomic_read(&flaky.waiting));
    /* The filter is there, but nobody waits for it to go: the guest writes */
    g_assert_cmpstr(blk_bs(guest)->drv->format_name, ==, "pull-on-demand");
    g_assert_cmpint(blk_pwrite(guest, 0, sizeof(block), block, 0), ==, 0);
    expect_nothing(fd);
    check_record(WSM_IMAGE_STATE_INCOMPLETE);
    g_assert_false(wsm_dest_may_end(d));
    g_assert_true(wsm_dest_is_needed(d));
    qatomic_set(&flaky.hold, false);
    AWAIT(!strcmp(blk_bs(guest)->drv->format_name, "test-flaky"));
    await_no_record();
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_INCOMPLETE);
    g_assert_cmpint(expect(fd, WSM_MSG_SYNC_ACK).bytes, ==, 0);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_CURRENT);
    check_record(WSM_IMAGE_STATE_CURRENT);
    g_assert_true(wsm_dest_may_end(d));
    AWAIT(wsm_dest_was_told(d));

    /* The answer may be lost: it is asked again */
    hang_up(fd);
    fd = open_urgent();
    g_assert_cmpint(sync_with(fd, 1, 4), ==, 0);
    hang_up(fd);
    hang_up(bulk);
    tear_down();
}

/* It cannot be made durable: whoever asks again gets another try */
static void test_sync_fails(void)
{
    int fd;

    set_up();
    qatomic_set(&flaky.ret, 0);
    fd = open_first();
    sync_with(fd, 0, 1);
    freeze(0, 0);
    qatomic_set(&flaky.ret, -EIO);
    load();
    expect(fd, WSM_MSG_READY);
    say(fd, WSM_MSG_GO, 1, 0);
    AWAIT(wsm_dest_is_complete(d));
    say(fd, WSM_MSG_SYNC, 1, 2);
    expect_end(fd);
    expect_error("cannot flush a disk at the destination");
    g_assert_false(wsm_dest_may_end(d));
    g_assert_false(wsm_dest_was_told(d));
    check_record(WSM_IMAGE_STATE_INCOMPLETE);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_INCOMPLETE);

    fd = open_urgent();
    qatomic_set(&flaky.ret, 0);
    g_assert_cmpint(sync_with(fd, 1, 3), ==, 0);
    AWAIT(wsm_dest_was_told(d));
    g_assert_true(wsm_dest_may_end(d));
    check_record(WSM_IMAGE_STATE_CURRENT);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_CURRENT);
    hang_up(fd);
    tear_down();
}

/* It ends while somebody waits for that */
static void test_stop_in_sync(void)
{
    int fd;

    set_up();
    fd = open_first();
    sync_with(fd, 0, 1);
    freeze(0, 0);
    qatomic_set(&flaky.ret, -EIO);
    load();
    expect(fd, WSM_MSG_READY);
    qatomic_set(&flaky.hold, true);
    say(fd, WSM_MSG_GO, 1, 0);
    say(fd, WSM_MSG_SYNC, 1, 2);
    AWAIT(qatomic_read(&flaky.waiting));
    qatomic_set(&flaky.hold, false);
    wsm_dest_stop(d);
    check_record(WSM_IMAGE_STATE_INCOMPLETE);
    expect_end(fd);
    tear_down();
}

/*
 * Maps of missing blocks
 */

/* What would be known after a crash: bytes, or -1 if no map counts */
static int64_t map_missing(void)
{
    g_autoptr(WsmRecord) record = NULL;
    WsmMapWanted wanted = { .session = start.session, .size = DISK_SIZE };
    WsmMapContents contents;
    int64_t missing;

    if (wsm_map_file_load(path, &wanted, &contents, NULL) !=
        WSM_MAP_COMMITTED) {
        return -1;
    }
    /* Else it counts for nothing */
    wsm_record_load(path, &record, &error_abort);
    g_assert_nonnull(record);
    g_assert_cmpint(record->state, ==, WSM_IMAGE_STATE_INCOMPLETE);
    missing = contents.missing->bytes;
    wsm_map_contents_destroy(&contents);
    return missing;
}

static void expect_maps(WsmCrashSafe state)
{
    g_autoptr(WsmInfo) info = g_new0(WsmInfo, 1);

    wsm_dest_info(d, info);
    g_assert_cmpint(info->crash_safe->state, ==, state);
}

static void test_map(void)
{
    static const uint8_t sector[512];
    int fd, bulk;

    crash_safe = ON_OFF_AUTO_ON;
    set_up();
    g_assert_true(map_exists());
    expect_maps(WSM_CRASH_SAFE_PREPARED);
    g_assert_cmpint(map_missing(), ==, -1);

    fd = hand_over(10, 3);
    bulk = open_bulk();
    AWAIT(maps_told);
    g_assert_cmpint(maps_state, ==, WSM_CRASH_SAFE_ON);
    expect_maps(WSM_CRASH_SAFE_ON);
    g_assert_cmpint(map_missing(), ==, 3 * BLOCK);

    /* What arrives is taken off it in a while */
    send_block(bulk, 1, 10);
    AWAIT(map_missing() == 2 * BLOCK);

    /* What the guest flushes, before that ends; it did not miss it */
    send_block(bulk, 1, 11);
    g_assert_cmpint(blk_pwrite(guest, 11 * BLOCK + 512, 512, sector, 0), ==, 0);
    g_assert_cmpint(blk_flush(guest), ==, 0);
    g_assert_cmpint(map_missing(), ==, BLOCK);

    /* It goes when no record says any more that it counts */
    send_block(bulk, 1, 12);
    g_assert_cmpint(sync_with(fd, 1, 2), ==, 0);
    check_record(WSM_IMAGE_STATE_CURRENT);
    AWAIT(!map_exists());
    g_assert_cmpint(maps_told, ==, 1);
    hang_up(fd);
    hang_up(bulk);
    tear_down();
    crash_safe = ON_OFF_AUTO_OFF;
}

/* The guest's first flush waits until the map is written */
static void test_map_first_flush(void)
{
    int fd, bulk;

    crash_safe = ON_OFF_AUTO_ON;
    set_up();
    fd = hand_over(10, 2);
    g_assert_cmpint(blk_flush(guest), ==, 0);
    g_assert_cmpint(map_missing(), ==, 2 * BLOCK);
    bulk = open_bulk();
    send_block(bulk, 1, 10);
    send_block(bulk, 1, 11);
    AWAIT(wsm_dest_may_end(d));
    AWAIT(!map_exists());
    hang_up(fd);
    hang_up(bulk);
    tear_down();
    crash_safe = ON_OFF_AUTO_OFF;
}

/* The guest does not come: nothing of it is left */
static void test_map_goes(void)
{
    crash_safe = ON_OFF_AUTO_AUTO;
    set_up();
    g_assert_true(map_exists());
    tear_down();
    g_assert_cmpint(maps_told, ==, 0);
    crash_safe = ON_OFF_AUTO_OFF;
}

/*
 * Not now
 */

static void check_not_expected(int fd, const char *text)
{
    expect_end(fd);
    expect_error(text);
    g_assert_cmpint(runs, ==, 0);
    g_assert_cmpint(taken_back, ==, 0);
}

static void test_not_expected(void)
{
    int fd;

    set_up();
    fd = open_first();
    say(fd, WSM_MSG_GO, 1, 0);
    check_not_expected(fd, "block channel 0: GO of epoch 1 in phase "
                       "'disk-precopy'");
    fd = open_urgent();
    say(fd, WSM_MSG_ABORT, 0, 0);
    check_not_expected(fd, "block channel 0: ABORT of epoch 0 in phase "
                       "'disk-precopy'");
    fd = open_urgent();
    sync_with(fd, 0, 1);
    freeze(10, 1);
    say(fd, WSM_MSG_SYNC, 1, 2);
    check_not_expected(fd, "SYNC of epoch 1 in phase 'freeze'");

    /* GO needs READY, and READY the state */
    fd = open_urgent();
    say(fd, WSM_MSG_GO, 1, 0);
    check_not_expected(fd, "GO of epoch 1 in phase 'freeze'");
    tear_down();
}

static void test_loaded(void)
{
    Error *err = NULL;
    int fd;

    set_up();
    fd = open_first();
    sync_with(fd, 0, 1);
    g_assert_false(wsm_dest_loaded(d, let_run, &runs, &err));
    disks_error(err, "without the section 'wsm-freeze'");
    err = NULL;
    freeze(10, 1);
    load();
    g_assert_false(wsm_dest_loaded(d, let_run, &runs, &err));
    disks_error(err, "came twice");
    hang_up(fd);
    tear_down();
}

static void test_bad_runs(void)
{
    const uint8_t bad[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    Error *err = NULL;

    set_up();
    hang_up(open_first());
    g_assert_false(wsm_dest_set_missing(d, 0, bad, sizeof(bad), &err));
    error_free_or_abort(&err);
    tear_down();
}

/*
 * The guest does not come
 */

/* The source has taken it back: whoever reads the stream must not wait */
static void test_abort(void)
{
    int fd;

    set_up();
    fd = open_first();
    sync_with(fd, 0, 1);
    freeze(10, 1);
    load();
    expect(fd, WSM_MSG_READY);
    say(fd, WSM_MSG_ABORT, 0, 0);
    AWAIT(taken_back);
    AWAIT(has_something(stream));
    g_assert_true(peer_has_ended(stream));

    /* GO cannot come any more, and nothing follows from ABORT again */
    say(fd, WSM_MSG_ABORT, 0, 0);
    say(fd, WSM_MSG_GO, 1, 0);
    expect_end(fd);
    expect_error("GO of epoch 1");
    g_assert_cmpint(runs, ==, 0);
    g_assert_cmpint(taken_back, ==, 1);
    g_assert_false(wsm_dest_is_in_use(d));
    tear_down();
}

static void test_broke(void)
{
    set_up();
    hang_up(open_first());
    g_assert_false(wsm_dest_broke(d));
    tear_down();

    set_up();
    hang_up(open_first());
    wsm_session_advance(&session, WSM_PHASE_DISK_PRECOPY,
                        WSM_PHASE_RAM_PRECOPY);
    freeze(10, 1);
    load();
    g_assert_true(wsm_dest_broke(d));
    g_assert_false(wsm_dest_end(d));
    tear_down();
}

/* What is wrong here is told to those who come; no disk is touched */
static void test_refusal(void)
{
    int fd;

    set_up_as(DISK_SIZE, "not today");
    g_assert_cmpint(wsm_dest_disks(d), ==, 0);
    g_assert_cmpstr(wsm_dest_refusal(d), ==, "not today");
    for (unsigned i = 0; i < 2; i++) {
        fd = say_hello(i);
        expect_text(fd, WSM_MSG_REFUSE, "not today");
        expect_end(fd);
        expect_error("not today");
    }
    wsm_dest_refuse(d, "nor tomorrow");
    g_assert_cmpstr(wsm_dest_refusal(d), ==, "not today");
    check_record(WSM_IMAGE_STATE_CURRENT);
    tear_down();
}

static void test_bad_disk(void)
{
    int fd;

    set_up_as(2 * DISK_SIZE, NULL);
    expect_error("disk 'their-vda': destination is 1048576 bytes");
    g_assert_nonnull(strstr(wsm_dest_refusal(d), "create it with the same"));
    fd = say_hello(0);
    expect_text(fd, WSM_MSG_REFUSE, "destination is 1048576 bytes");
    expect_end(fd);
    expect_error("destination is 1048576 bytes");
    check_record(WSM_IMAGE_STATE_CURRENT);
    tear_down();
}

/* It turns out later: who is there is told as well */
static void test_give_up(void)
{
    int fd, other;

    set_up();
    fd = open_first();
    wsm_dest_refuse(d, "no such device");
    expect_text(fd, WSM_MSG_GIVE_UP, "no such device");
    wsm_dest_refuse(d, "another reason");
    g_assert_cmpstr(wsm_dest_refusal(d), ==, "no such device");
    expect_nothing(fd);
    other = say_hello(1);
    expect_text(other, WSM_MSG_REFUSE, "no such device");
    expect_end(other);
    expect_error("no such device");
    hang_up(fd);
    tear_down();
}

/*
 * The end
 */

/* Nobody was there, nothing came: the image is as it was before */
static void test_nothing_came(void)
{
    set_up();
    check_record(WSM_IMAGE_STATE_INCOMPLETE);
    wsm_dest_stop(d);
    check_record(WSM_IMAGE_STATE_CURRENT);
    g_assert_cmpint(image()->state, ==, WSM_IMAGE_STATE_CURRENT);
    g_assert_cmpint(try_connect(), ==, -1);
    tear_down();
}

static void test_stop_in_precopy(void)
{
    int fd, bulk;

    set_up();
    fd = open_first();
    bulk = open_bulk();
    send_block(bulk, 0, 3);
    wsm_dest_stop(d);
    expect_end(fd);
    expect_end(bulk);
    check_record(WSM_IMAGE_STATE_INCOMPLETE);
    tear_down();
}

static unsigned deferred;

static void deferred_bh(void *opaque)
{
    g_assert_true(opaque == &deferred);
    deferred++;
}

/* Somebody is called by a poll of ours, who would free @d */
static void within_bh(void *opaque)
{
    g_assert_true(wsm_dest_defer(d, deferred_bh, &deferred));
    g_assert_cmpint(deferred, ==, 0);
    *(bool *)opaque = true;
}

static void test_defer(void)
{
    bool within = false;

    set_up();
    deferred = 0;
    hang_up(open_first());
    g_assert_false(wsm_dest_defer(d, deferred_bh, &deferred));
    aio_bh_schedule_oneshot(qemu_get_aio_context(), within_bh, &within);
    wsm_dest_stop(d);
    g_assert_true(within);
    g_assert_cmpint(deferred, ==, 0);
    AWAIT(deferred);
    g_assert_false(wsm_dest_defer(d, deferred_bh, &deferred));
    tear_down();
}

/* No filter goes under a guest that misses blocks */
static void test_in_use(void)
{
    if (g_test_subprocess()) {
        set_up();
        hand_over(10, 1);
        wsm_dest_stop(d);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
}

static void test_info(void)
{
    g_autoptr(WsmInfo) info = g_new0(WsmInfo, 1);
    WsmSample sample = {};
    int fd, bulk;

    set_up();
    fd = hand_over(10, 3);
    bulk = open_bulk();
    send_block(bulk, 1, 10);
    wsm_dest_info(d, info);
    g_assert_cmpstr(info->disks->value->name, ==, "vda");
    g_assert_cmpint(info->disks->value->missing, ==, 2 * BLOCK);
    g_assert_null(info->disks->next);
    g_assert_true(info->channels->value->connected);
    g_assert_true(info->channels->next->value->connected);
    g_assert_null(info->channels->next->next);
    wsm_dest_sample(d, &sample);
    g_assert_cmpint(sample.dirty, ==, 2 * BLOCK);
    g_assert_cmpint(sample.data, ==, BLOCK);
    send_block(bulk, 1, 11);
    send_block(bulk, 1, 12);
    AWAIT(wsm_dest_may_end(d));
    hang_up(fd);
    hang_up(bulk);
    tear_down();
}

/* Templates are for a source that knows them, if there are any */
static void test_templates_known(void)
{
    static const char *const scope[] = { "public" };
    char *file = test_set_write(WSM_SET_PAGES, (uint8_t []) { 7 }, 1);
    WsmTemplates *all = test_templates(1, &file, scope, &error_abort);
    WsmRef ref = { .kind = WSM_REF_TEMPLATE }, out;
    WsmPacket packet = { .nrefs = 1 };
    uint8_t buf[WSM_PACKET_SIZE + WSM_REF_SIZE];

    wsm_packet_encode(&packet, &ref, buf);
    for (int i = 0; i < 4; i++) {
        Error *err = NULL;
        bool ok;

        features = WSM_FEATURE_MEMORY | (i & 1 ? WSM_FEATURE_TEMPLATE : 0);
        own = i & 2 ? all : NULL;
        set_up();
        ok = wsm_dest_memory_refs(wsm_dest_memory(d), &packet,
                                  buf + WSM_PACKET_SIZE, &out, &err);
        g_assert_cmpint(ok, ==, i == 3);
        g_assert_cmpint(ok, ==, !err);
        error_free(err);
        tear_down();
    }
    features = 0;
    own = NULL;
    wsm_templates_unref(all);
    test_set_remove(file);
}

int main(int argc, char **argv)
{
    int ret;

    disks_init(&argc, &argv);
    signal(SIGPIPE, SIG_IGN);
    module_call_init(MODULE_INIT_QOM);
    qcrypto_init(&error_abort);
    flaky_register();

    g_test_add_func("/wsm/destination/migration", test_migration);
    g_test_add_func("/wsm/destination/alone", test_alone);
    g_test_add_func("/wsm/destination/map", test_map);
    g_test_add_func("/wsm/destination/map-first-flush", test_map_first_flush);
    g_test_add_func("/wsm/destination/map-goes", test_map_goes);
    g_test_add_func("/wsm/destination/said-again", test_said_again);
    g_test_add_func("/wsm/destination/asked-again", test_asked_again);
    g_test_add_func("/wsm/destination/sync", test_sync);
    g_test_add_func("/wsm/destination/sync/end", test_sync_end);
    g_test_add_func("/wsm/destination/sync/fails", test_sync_fails);
    g_test_add_func("/wsm/destination/sync/stop", test_stop_in_sync);
    g_test_add_func("/wsm/destination/not-expected", test_not_expected);
    g_test_add_func("/wsm/destination/loaded", test_loaded);
    g_test_add_func("/wsm/destination/bad-runs", test_bad_runs);
    g_test_add_func("/wsm/destination/abort", test_abort);
    g_test_add_func("/wsm/destination/broke", test_broke);
    g_test_add_func("/wsm/destination/refusal", test_refusal);
    g_test_add_func("/wsm/destination/bad-disk", test_bad_disk);
    g_test_add_func("/wsm/destination/give-up", test_give_up);
    g_test_add_func("/wsm/destination/nothing-came", test_nothing_came);
    g_test_add_func("/wsm/destination/stop-in-precopy", test_stop_in_precopy);
    g_test_add_func("/wsm/destination/defer", test_defer);
    g_test_add_func("/wsm/destination/in-use", test_in_use);
    g_test_add_func("/wsm/destination/info", test_info);
    g_test_add_func("/wsm/destination/templates", test_templates_known);
    ret = g_test_run();
    disks_cleanup();
    return ret;
}
