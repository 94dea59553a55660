/*
 * Whole-system migration: what the rest of QEMU calls
 *
 * Every function here does nothing, or returns false or 0, unless the
 * capability 'whole-system' is on or it says otherwise.  All run in the main
 * thread with the BQL held unless they say otherwise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_WSM_H
#define MIGRATION_WSM_H

#include "io/channel-socket.h"
#include "io/net-listener.h"
#include "qapi/qapi-types-migration.h"

/* Any thread */
bool migrate_whole_system(void);

/*
 * In util/error-report.c, which knows nothing of us: gets each error before it
 * is printed, in any thread, unless it is NULL.  It must not use up the
 * va_list, which is printed after it.
 */
extern void G_GNUC_PRINTF(1, 0) (*error_report_tap)(const char *fmt,
                                                    va_list ap);

/* Once, from migration_object_init() */
void wsm_mig_init(void);

/*
 * QEMU quits: let go of all block nodes, whatever state a migration is in.  In
 * post-copy it first waits until the other side does not need this one.
 */
void wsm_shutdown(void);

/*
 * Do the capabilities @new_caps go together with whole-system?  While a
 * migration has not ended none can change.
 */
bool wsm_caps_check(const bool *new_caps, Error **errp);

/*
 * Can block channels be opened beside a main stream to @addr, or come beside
 * one from there?  Says what to do if not.  With the BQL, or out of band for
 * those that come.
 */
bool wsm_transport_check(const MigrationAddress *addr, Error **errp);

/*
 * `migrate` is about to connect to @addr: prepare the disks.  That may take its
 * time, and between connecting and the first bytes there must be little.  With
 * @resume all is prepared, only block channels go to @addr from now on.  False,
 * and @errp is set: it has failed.
 */
bool wsm_outgoing_start(const MigrationAddress *addr, bool resume,
                        Error **errp);

/*
 * The migration thread has set everything up: copy the disks, until what is
 * left of them can wait.  Migration thread, without the BQL.
 */
void wsm_outgoing_copy_disks(void);

/*
 * In each round of the migration thread: may it go on to post-copy, or end?
 * @pending, what is left in bytes, is made so large that post-copy is not left
 * out.  Migration thread, without the BQL.
 */
bool wsm_outgoing_may_switch_over(uint64_t *pending);

/*
 * query-migrate: fill in what there is to say of disks, and make the throughput
 * that of disks and memory; "ram" is there.  info migrate: print the former,
 * @stats may be NULL.
 */
void wsm_outgoing_info(MigrationInfo *info);
void wsm_outgoing_print(Monitor *mon, const MigrationStats *stats);

/* migrate_cancel came before the main stream was connected */
void wsm_outgoing_cancelled(void);

/*
 * A connection was accepted.  Returns true if it is taken care of: it is
 * looked at when its first bytes are there, and then becomes a block channel,
 * goes the way of other migration connections, or is closed.  Without the
 * capability the first is not looked at, and of the others only block channels
 * are ours, if the source has the capability.
 */
bool wsm_incoming_accept(QIOChannelSocket *sioc);

/*
 * The main stream begins with @n capabilities that are on at the source and
 * that the destination should have as well: with or without ours here, it is
 * on until this attempt is over if it is on there.  Returns 0; or -errno, and
 * has said why, if that cannot be.  Main thread, load coroutine.
 */
int wsm_incoming_follow(const MigrationCapability *caps, uint32_t n);

/*
 * The incoming side listens at @listener, and has said how that ends: have room
 * there for block channels, which come at about the same time; with or without
 * the capability.  Any thread: with exec-oob, migrate-recover comes from that
 * of the monitor.
 */
void wsm_incoming_listen(QIONetListener *listener);

/*
 * All state of the guest has been loaded: let the guest run by scheduling
 * @cb(@opaque) with migration_bh_schedule(), at once without, else when
 * the source has handed the guest over.  Main thread, load coroutine.
 */
void wsm_incoming_schedule_run(QEMUBHFunc *cb, void *opaque);

/* If the source's guest was not running, set its run state and return true */
bool wsm_incoming_stays_stopped(void);

/*
 * The main stream broke.  May the destination wait for a new one?  True from
 * the moment it has told the source that it is ready to run the guest, unless
 * the source has taken it back; if it has not, it will not do so any more.
 * With the capability off it is @otherwise.  Any thread.
 */
bool wsm_incoming_recoverable(bool otherwise);

/*
 * The main stream, or that of the package, was read to its end without an
 * error: @ret is 0, or positive if another reads on.  Or it broke: -errno.
 * Returns @ret; or -errno if the migration is not over; or 0 if everything is
 * here, so that it does not matter that the stream broke.  (Not with
 * postcopy-ram: memory may be missing.)  Any thread.
 */
int wsm_incoming_check_end(int ret);

/*
 * The main stream broke before the guest could run: leave the disks' images in
 * good order and exit, both in the main thread.  To be called in another,
 * without the BQL.  Returns true if QEMU shall live on without the guest
 * (migrate-incoming with exit-on-error=false), and false if the capability is
 * off.
 */
bool wsm_incoming_give_up(void);

/*
 * A method of multifd is being registered: @method is its MultiFDCompression,
 * @ops its MultiFDMethods, which has no name that could be used here.  Returns
 * what is to be registered.  When QEMU starts, before all others of these.
 */
const void *wsm_multifd_ops(int method, const void *ops);

/* What QEMU does when a migration is complete */
typedef void WsmMigrationEnd(MigrationState *s);

/*
 * Something is wrong with the main stream.  If everything is at the destination
 * that does not matter: call @end and return true.  Not with postcopy-ram:
 * memory may be missing.  Migration thread.
 */
bool wsm_outgoing_completes(WsmMigrationEnd *end);

/*
 * As above: the main stream broke.  A migrate_cancel that broke it comes first:
 * it shuts the socket down before it says so in the state, which then cannot
 * become "failed" any more.  Migration thread, without the BQL.
 */
bool wsm_outgoing_broke(WsmMigrationEnd *end);

/* As above, if the migration is paused.  Migration thread. */
void wsm_outgoing_end_pause(WsmMigrationEnd *end);

/*
 * A message came by the return path that QEMU does not know.  Set @errp: to
 * what the destination says, if it is a refusal.  With or without the
 * capability.  Thread of the return path.
 */
void wsm_outgoing_message(QEMUFile *rp, uint16_t type, uint16_t length,
                          Error **errp);

/*
 * Has the guest been handed over?  Then it must not run here again, whatever
 * becomes of the migration.  Any thread.
 */
bool wsm_outgoing_is_handed_over(void);

/*
 * The migration has ended otherwise than well; if so, set the run state and
 * return true.  Without the capability: if the destination has refused it
 * because of that, its words become the migration's error.  BQL, migration
 * thread.
 */
bool wsm_outgoing_stays_stopped(void);

/*
 * The main stream broke in the post-copy state.  If the guest has not been
 * handed over, as the destination did not say that it is ready, true: it will
 * not be any more and must run here again.  True as well if QEMU has left that
 * state meanwhile, as it does when it quits: there is nothing to pause.
 * Migration thread.
 */
bool wsm_outgoing_takes_back(void);

/*
 * May the guest run, or is one of its disks a copy that was handed over to
 * another host, or incomplete?  Then false, and @errp says what to do.  With or
 * without the capability; when it returns true, sync points of the disks are
 * tracked on.
 */
bool wsm_may_run(Error **errp);

/*
 * May a snapshot of the guest be saved or loaded?  Not with the capability, nor
 * before a whole-system migration has ended.
 */
bool wsm_may_snapshot(Error **errp);

/* Stop the guest to load a snapshot, unless wsm_may_snapshot() refuses it */
void wsm_stop_to_load(void);

/* cont, for a guest that runs from the start; says why if it does not */
void wsm_autostart(void);

/*
 * The name of @bitmap, NULL if it has none or belongs to a sync point.  Any
 * thread.
 */
const char *wsm_others_bitmap_name(const BdrvDirtyBitmap *bitmap);

/*
 * QEMU ends and nothing writes to the guest's disks any more: store their sync
 * points.  Called with everything drained, before bdrv_close_all().
 */
void wsm_before_close(void);

#endif
