/*
 * For tests of what QEMU may not do: root gives up its capabilities
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef WSM_POWERS_H
#define WSM_POWERS_H

/*
 * From now on modes of files and folders count for this thread, as for anybody
 * who is not root; or no longer.  Who is not root has none to give up.
 */
void powers_drop(void);
void powers_restore(void);

#endif
