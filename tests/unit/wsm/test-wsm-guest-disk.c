/*
 * Unit tests of migration/wsm/image/guest-disk.c
 *
 * A machine with real buses and devices, which only say where they are.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qobject/qdict.h"
#include "block/block_int.h"
#include "block/pull-on-demand.h"
#include "migration/wsm/image/guest-disk.h"

#define DISK_SIZE   (1024 * 1024)

/*
 * A controller is on the root bus, which tells addresses ("slot"), or on the
 * system bus, which tells none.  Its own bus tells all ("full"), only a place
 * as firmware sees it ("place"), or nothing ("mute").
 */

typedef struct TestDevice {
    DeviceState parent;
    char *where;                /* property "where" */
    int32_t unit;
} TestDevice;

#define TEST_DEVICE(obj) ((TestDevice *)(obj))

static char *bus_dev_path(DeviceState *dev)
{
    return g_strdup_printf("at:%s", TEST_DEVICE(dev)->where);
}

static char *bus_place(DeviceState *dev)
{
    return g_strdup_printf("place@%s", TEST_DEVICE(dev)->where);
}

static void tells_all(ObjectClass *oc, void *data)
{
    BUS_CLASS(oc)->get_dev_path = bus_dev_path;
}

static void tells_nothing(ObjectClass *oc, void *data)
{
    BUS_CLASS(oc)->get_fw_dev_path = NULL;
}

static void tells_place(ObjectClass *oc, void *data)
{
    BUS_CLASS(oc)->get_fw_dev_path = bus_place;
}

static const Property device_props[] = {
    DEFINE_PROP_STRING("where", TestDevice, where),
};

static const Property unit_props[] = {
    DEFINE_PROP_INT32("unit", TestDevice, unit, -1),
};

static void device_init(ObjectClass *oc, void *data)
{
    DEVICE_CLASS(oc)->bus_type = "test-bus";
    device_class_set_props(DEVICE_CLASS(oc), device_props);
}

static void unit_init(ObjectClass *oc, void *data)
{
    device_class_set_props(DEVICE_CLASS(oc), unit_props);
}

static const TypeInfo types[] = {
    { .name = "test-bus", .parent = TYPE_BUS, .abstract = true },
    { .name = "test-bus-full", .parent = "test-bus",
      .instance_size = sizeof(BusState), .class_init = tells_all },
    { .name = "test-bus-place", .parent = "test-bus",
      .instance_size = sizeof(BusState), .class_init = tells_place },
    { .name = "test-bus-mute", .parent = "test-bus",
      .instance_size = sizeof(BusState), .class_init = tells_nothing },
    { .name = "test-device", .parent = TYPE_DEVICE,
      .instance_size = sizeof(TestDevice), .class_init = device_init },
    { .name = "test-device-unit", .parent = "test-device",
      .instance_size = sizeof(TestDevice), .class_init = unit_init },
    { .name = "scsi-block", .parent = "test-device",
      .instance_size = sizeof(TestDevice) },
    { .name = "scsi-generic", .parent = "test-device",
      .instance_size = sizeof(TestDevice) },
};

static Object *machine, *peripheral, *anonymous;
static GPtrArray *devices;              /* of DeviceState, oldest first */
static GPtrArray *users;                /* of BlockBackend */

static void set_up(void)
{
    devices = g_ptr_array_new();
    users = g_ptr_array_new();
}

static void tear_down(void)
{
    for (unsigned i = 0; i < users->len; i++) {
        blk_detach_dev(users->pdata[i], blk_get_attached_dev(users->pdata[i]));
        blk_unref(users->pdata[i]);
    }
    for (unsigned i = devices->len; i > 0; i--) {
        object_unparent(devices->pdata[i - 1]);
    }
    g_ptr_array_unref(users);
    g_ptr_array_unref(devices);
}

/* As -device; @id may be NULL, and @bus, too, and @where */
static DeviceState *add_device(const char *type, const char *id, BusState *bus,
                               const char *where)
{
    DeviceState *dev = DEVICE(object_new(type));
    g_autofree char *name = id ? g_strdup(id)
                               : g_strdup_printf("device[%u]", devices->len);

    object_property_add_child(id ? peripheral : anonymous, name, OBJECT(dev));
    if (where) {
        object_property_set_str(OBJECT(dev), "where", where, &error_abort);
    }
    if (bus) {
        qdev_set_parent_bus(dev, bus, &error_abort);
    }
    object_unref(OBJECT(dev));
    g_ptr_array_add(devices, dev);
    return dev;
}

static BusState *add_bus(const char *type, DeviceState *dev)
{
    return qbus_new(type, dev, NULL);
}

/* A controller with a bus of @type, at @where on @bus */
static BusState *add_controller(BusState *bus, const char *where,
                                const char *type)
{
    return add_bus(type, add_device("test-device", NULL, bus, where));
}

static BlockDriverState *open_null(const char *node, int flags)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "null-co");
    qdict_put_int(options, "size", DISK_SIZE);
    if (node) {
        qdict_put_str(options, "node-name", node);
    }
    return bdrv_open(NULL, NULL, options, flags, &error_abort);
}

/* The device gets a disk; takes @bs, which may be NULL: no medium */
static BlockBackend *add_medium(DeviceState *dev, BlockDriverState *bs)
{
    BlockBackend *blk = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);

    if (bs) {
        blk_insert_bs(blk, bs, &error_abort);
        bdrv_unref(bs);
    }
    g_assert_cmpint(blk_attach_dev(blk, dev), ==, 0);
    g_ptr_array_add(users, blk);
    return blk;
}

static BlockBackend *add_disk(DeviceState *dev)
{
    return add_medium(dev, open_null(NULL, BDRV_O_RDWR));
}

static WsmDisk *at(GArray *all, unsigned i)
{
    g_assert_cmpint(i, <, all->len);
    return &g_array_index(all, WsmDisk, i);
}

static void check_error(Error *err, const char *text)
{
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), text)) {
        g_error("'%s' is not in '%s'", text, error_get_pretty(err));
    }
    error_free(err);
}

/*
 * Names
 */

static void test_names(void)
{
    DeviceState *dev;
    GArray *all;
    BlockBackend *blk;

    set_up();
    /* As a virtio-blk-pci has it: the user gave the id to its parent */
    dev = add_device("test-device", "vda", NULL, NULL);
    dev = DEVICE(object_new("test-device"));
    object_property_add_child(devices->pdata[0], "backend", OBJECT(dev));
    object_unref(OBJECT(dev));
    add_disk(dev);
    blk = add_disk(add_device("test-device", NULL, NULL, NULL));
    monitor_add_blk(blk, "drive0", &error_abort);
    add_medium(add_device("test-device", NULL, NULL, NULL),
               open_null("node2", BDRV_O_RDWR));

    all = wsm_disk_list();
    g_assert_cmpint(all->len, ==, 3);
    g_assert_cmpstr(at(all, 0)->path, ==, "/machine/peripheral/vda/backend");
    g_assert_cmpstr(at(all, 0)->name, ==, "vda");
    g_assert_cmpstr(at(all, 1)->name, ==, "drive0");
    g_assert_cmpstr(at(all, 1)->path, ==,
                    "/machine/peripheral-anon/device[1]");
    g_assert_cmpstr(at(all, 2)->name, ==, at(all, 2)->path);
    g_assert_true(at(all, 1)->blk == blk);

    /* Each of them by all that the user may call it */
    g_assert_true(wsm_disk_called(all, "vda") == at(all, 0));
    g_assert_true(wsm_disk_called(all, at(all, 0)->path) == at(all, 0));
    g_assert_true(wsm_disk_called(all, "drive0") == at(all, 1));
    g_assert_true(wsm_disk_called(all, at(all, 1)->path) == at(all, 1));
    g_assert_true(wsm_disk_called(all, "node2") == at(all, 2));
    g_assert_null(wsm_disk_called(all, "vdb"));
    g_assert_null(wsm_disk_called(all, "/machine/peripheral/vda"));
    g_assert_true(wsm_disk_is_called(at(all, 2), "node2"));
    g_assert_false(wsm_disk_is_called(at(all, 1), "node2"));
    g_assert_true(wsm_disk_bs(at(all, 2)) == blk_bs(at(all, 2)->blk));
    g_array_unref(all);
    monitor_remove_blk(blk);
    tear_down();
}

/* Those with a medium, each once; who is no device of the guest has none */
static void test_list(void)
{
    DeviceState *dev;
    BlockDriverState *bs;
    BlockBackend *no_device;
    GArray *all;

    set_up();
    all = wsm_disk_list();
    g_assert_cmpint(all->len, ==, 0);
    g_array_unref(all);

    no_device = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);
    bs = open_null("n0", BDRV_O_RDWR);
    blk_insert_bs(no_device, bs, &error_abort);
    add_medium(add_device("test-device", "empty", NULL, NULL), NULL);
    dev = add_device("test-device", "two", NULL, NULL);
    bdrv_ref(bs);
    add_medium(dev, bs);
    /* A device may have two, as a floppy's has for a moment */
    add_medium(dev, bs);
    add_disk(add_device("test-device", "other", NULL, NULL));

    all = wsm_disk_list();
    g_assert_cmpint(all->len, ==, 2);
    g_assert_cmpstr(at(all, 0)->name, ==, "two");
    g_assert_cmpstr(at(all, 1)->name, ==, "other");
    g_array_unref(all);
    blk_unref(no_device);
    tear_down();
}

/* Filters of our own are not what has the sync points */
static void test_filter(void)
{
    static const BdrvPullOps ops;
    BlockDriverState *bs, *filter;
    GArray *all;

    set_up();
    bs = open_null("n0", BDRV_O_RDWR);
    add_medium(add_device("test-device", "vda", NULL, NULL), bs);
    filter = bdrv_pull_append(bs, 4096, &ops, NULL, &error_abort);
    all = wsm_disk_list();
    g_assert_true(blk_bs(at(all, 0)->blk) == filter);
    g_assert_true(wsm_disk_bs(at(all, 0)) == bs);
    g_array_unref(all);
    bdrv_pull_drop(filter);
    tear_down();
}

/*
 * Addresses
 */

static void check_address(DeviceState *dev, const char *address)
{
    g_autofree char *path = object_get_canonical_path(OBJECT(dev));
    g_autofree char *shown = NULL;
    GArray *all = wsm_disk_list();
    WsmDisk *disk = wsm_disk_called(all, path);

    g_assert_nonnull(disk);
    g_assert_cmpstr(disk->address, ==, address);
    shown = wsm_disk_shown_address(disk->address);
    g_assert_cmpstr(shown, ==, *address ? address : NULL);
    g_array_unref(all);
}

static DeviceState *disk_at(const char *type, BusState *bus, const char *where)
{
    DeviceState *dev = add_device(type, NULL, bus, where);

    add_disk(dev);
    return dev;
}

static void test_addresses(void)
{
    BusState *root, *place, *mute, *deep, *lost;
    DeviceState *unit;

    set_up();
    root = add_bus("test-bus-full", add_device("test-device", NULL, NULL,
                                               NULL));
    place = add_controller(root, "7", "test-bus-place");
    mute = add_controller(root, "8", "test-bus-mute");
    deep = add_controller(place, "1", "test-bus-place");
    lost = add_controller(mute, "2", "test-bus-place");

    /* The bus tells it */
    check_address(disk_at("test-device", root, "4"), "at:4");
    /* Made from that of the controller, and of its controller */
    check_address(disk_at("test-device", place, "a"), "at:7/place@a");
    check_address(disk_at("test-device", deep, "b"),
                  "at:7/place@1/place@b");
    /* Two on a cable, at one place */
    unit = add_device("test-device-unit", NULL, place, "c");
    object_property_set_int(OBJECT(unit), "unit", 0, &error_abort);
    add_disk(unit);
    check_address(unit, "at:7/place@c/0");
    unit = add_device("test-device-unit", NULL, place, "c");
    object_property_set_int(OBJECT(unit), "unit", 1, &error_abort);
    add_disk(unit);
    check_address(unit, "at:7/place@c/1");
    unit = add_device("test-device-unit", NULL, place, "d");
    add_disk(unit);
    check_address(unit, "at:7/place@d");

    /* What is not known all the way up is no address */
    check_address(disk_at("test-device", mute, "d"), "");
    check_address(disk_at("test-device", lost, "e"), "");
    check_address(disk_at("test-device", NULL, NULL), "");
    tear_down();
}

/* What does not tell disks apart, or is too long to be told, is no address */
static void test_same_address(void)
{
    g_autofree char *fits = g_strnfill(WSM_MAX_PATH - strlen("at:"), 'x');
    g_autofree char *too_long = g_strconcat(fits, "x", NULL);
    g_autofree char *whole = g_strconcat("at:", fits, NULL);
    DeviceState *dev[3];
    BusState *root;

    set_up();
    root = add_bus("test-bus-full", add_device("test-device", NULL, NULL,
                                               NULL));
    dev[0] = disk_at("test-device", root, "4");
    check_address(dev[0], "at:4");
    dev[1] = disk_at("test-device", root, "5");
    dev[2] = disk_at("test-device", root, "4");
    check_address(dev[0], "");
    check_address(dev[1], "at:5");
    check_address(dev[2], "");
    check_address(disk_at("test-device", root, "4"), "");
    check_address(dev[0], "");
    check_address(dev[1], "at:5");

    check_address(disk_at("test-device", root, fits), whole);
    check_address(disk_at("test-device", root, too_long), "");
    tear_down();
}

/*
 * Random machines.  The model: an address is what the bus tells, if nobody
 * else has it.  And whoever is described is found again.
 */
static void random_machine(void)
{
    unsigned n = g_test_rand_int_range(1, 12), count[8] = {};
    unsigned where[12], found = 0;
    BusState *root;
    GArray *all;

    set_up();
    root = add_bus("test-bus-full", add_device("test-device", NULL, NULL,
                                               NULL));
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *text = NULL, *id = NULL;

        where[i] = g_test_rand_int_range(0, ARRAY_SIZE(count));
        count[where[i]]++;
        text = g_strdup_printf("%u", where[i]);
        id = g_test_rand_bit() ? g_strdup_printf("id%u", i) : NULL;
        add_disk(add_device("test-device", id, root, text));
    }
    all = wsm_disk_list();
    g_assert_cmpint(all->len, ==, n);
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *text = g_strdup_printf("at:%u", where[i]);
        WsmDiskDesc desc = { .name = at(all, i)->name };

        g_assert_cmpstr(at(all, i)->address, ==,
                        count[where[i]] == 1 ? text : "");
        desc.path = at(all, i)->path;
        desc.address = at(all, i)->address;
        g_assert_true(wsm_disk_find(all, &desc, &error_abort) == at(all, i));
        found++;
    }
    g_assert_cmpint(found, ==, n);
    g_array_unref(all);
    tear_down();
}

static void test_random(void)
{
    for (unsigned i = 0; i < 100; i++) {
        random_machine();
    }
}

/* As policy/match.h has it: the same place, under another path */
static void test_find(void)
{
    WsmDiskDesc desc = {
        .name = (char *)"theirs", .path = (char *)"/machine/other",
        .address = (char *)"at:5",
    };
    Error *err = NULL;
    BusState *root;
    GArray *all;

    set_up();
    root = add_bus("test-bus-full", add_device("test-device", NULL, NULL,
                                               NULL));
    disk_at("test-device", root, "4");
    disk_at("test-device", root, "5");
    all = wsm_disk_list();
    g_assert_true(wsm_disk_find(all, &desc, &error_abort) == at(all, 1));
    desc.address = (char *)"at:6";
    g_assert_null(wsm_disk_find(all, &desc, &err));
    check_error(err, "disk 'theirs': the destination has no disk at address "
                "'at:6'");
    g_array_unref(all);
    tear_down();
}

/*
 * Which of them
 */

static void free_excluded(WsmExcludedDiskList *list, const char *expected)
{
    g_autoptr(GString) is = g_string_new("");

    for (WsmExcludedDiskList *e = list; e; e = e->next) {
        g_string_append_printf(is, "%s: %s. ", e->value->name,
                               e->value->reason);
    }
    g_assert_cmpstr(is->str, ==, expected);
    qapi_free_WsmExcludedDiskList(list);
}

/* A disk that can be written to, one that cannot, and two of other kinds */
static GArray *four_disks(void)
{
    add_disk(add_device("test-device", "vda", NULL, NULL));
    add_medium(add_device("test-device", "cd", NULL, NULL),
               open_null("cd0", 0));
    add_disk(add_device("scsi-block", "lun", NULL, NULL));
    add_disk(add_device("test-device", "vdb", NULL, NULL));
    add_disk(add_device("scsi-generic", "sg", NULL, NULL));
    return wsm_disk_list();
}

static void test_select(void)
{
    WsmExcludedDiskList *excluded = NULL;
    strList *wanted = NULL;
    GPtrArray *selected;
    GArray *all;

    set_up();
    all = four_disks();
    selected = wsm_disk_select(all, NULL, &excluded, &error_abort);
    g_assert_cmpint(selected->len, ==, 2);
    g_assert_true(selected->pdata[0] == at(all, 0));
    g_assert_true(selected->pdata[1] == at(all, 3));
    g_ptr_array_unref(selected);
    free_excluded(excluded, "sg: SCSI passthrough. lun: SCSI passthrough. "
                  "cd: read-only. ");

    excluded = NULL;
    QAPI_LIST_PREPEND(wanted, g_strdup("vdb"));
    QAPI_LIST_PREPEND(wanted, g_strdup("vdb"));
    selected = wsm_disk_select(all, wanted, &excluded, &error_abort);
    g_assert_cmpint(selected->len, ==, 1);
    g_assert_true(selected->pdata[0] == at(all, 3));
    g_ptr_array_unref(selected);
    free_excluded(excluded, "sg: SCSI passthrough. lun: SCSI passthrough. "
                  "cd: read-only. vda: not in option 'disks'. ");
    qapi_free_strList(wanted);
    g_array_unref(all);
    tear_down();
}

static void check_wanted(GArray *all, const char *name, const char *text)
{
    WsmExcludedDiskList *excluded = NULL;
    strList *wanted = NULL;
    Error *err = NULL;

    QAPI_LIST_PREPEND(wanted, g_strdup(name));
    QAPI_LIST_PREPEND(wanted, g_strdup("vda"));
    g_assert_null(wsm_disk_select(all, wanted, &excluded, &err));
    check_error(err, text);
    g_assert_null(excluded);
    qapi_free_strList(wanted);
}

static void test_wanted(void)
{
    GArray *all;

    set_up();
    all = four_disks();
    check_wanted(all, "vdz", "disk 'vdz' in option 'disks' is no disk of a "
                 "guest device");
    check_wanted(all, "cd0", "disk 'cd0' in option 'disks' is read-only");
    check_wanted(all, "lun", "disk 'lun' in option 'disks' is a SCSI "
                 "passthrough device");
    check_wanted(all, "sg", "SCSI passthrough");
    g_array_unref(all);
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        type_register_static(&types[i]);
    }
    machine = object_property_add_new_container(object_get_root(), "machine");
    peripheral = object_property_add_new_container(machine, "peripheral");
    anonymous = object_property_add_new_container(machine, "peripheral-anon");
    object_property_add_new_container(machine, "unattached");

    g_test_add_func("/wsm/guest-disk/names", test_names);
    g_test_add_func("/wsm/guest-disk/list", test_list);
    g_test_add_func("/wsm/guest-disk/filter", test_filter);
    g_test_add_func("/wsm/guest-disk/addresses", test_addresses);
    g_test_add_func("/wsm/guest-disk/same-address", test_same_address);
    g_test_add_func("/wsm/guest-disk/random", test_random);
    g_test_add_func("/wsm/guest-disk/find", test_find);
    g_test_add_func("/wsm/guest-disk/select", test_select);
    g_test_add_func("/wsm/guest-disk/wanted", test_wanted);
    return g_test_run();
}
