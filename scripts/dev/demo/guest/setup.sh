#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Turns a fresh Debian tree into the demo's guest. Runs inside the tree (in a
# chroot) while the image is made: $1 is the guest's address with prefix
# length, $2 the scale of the pgbench database.
set -eu
address=$1
scale=$2
export LC_ALL=C.UTF-8

echo wsm-demo >/etc/hostname
echo '/dev/vda / ext4 noatime,errors=remount-ro 0 1' >/etc/fstab
: >/etc/machine-id
passwd -q -d root

# The database: an ordinary Debian cluster, data checksums on.
version=$(ls /usr/lib/postgresql | sort -V | tail -n 1)
pg_createcluster "$version" main -- --data-checksums --auth=trust --locale=C.UTF-8
# Debian's own createcluster.conf, which would say so, is replaced.
echo "include_dir = 'conf.d'" >>"/etc/postgresql/$version/main/postgresql.conf"
mkdir -p "/etc/postgresql/$version/main/conf.d"
cat >"/etc/postgresql/$version/main/conf.d/demo.conf" <<'CONF'
listen_addresses = ''
shared_buffers = 48MB
max_wal_size = 256MB
min_wal_size = 48MB
jit = off
CONF
install -d /dev/shm /run/postgresql
chmod 1777 /dev/shm
chown postgres:postgres /run/postgresql
pg_ctlcluster "$version" main start -o '-c fsync=off'
as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups env -C /"
$as_postgres createdb pgbench
$as_postgres "/usr/lib/postgresql/$version/bin/pgbench" -q -i -s "$scale" pgbench
$as_postgres psql -qX -c checkpoint
pg_ctlcluster "$version" main stop -m fast

# Network and agent.
cat >/etc/systemd/system/demo-network.service <<UNIT
[Unit]
Description=Static address of the demo guest
DefaultDependencies=no
After=systemd-modules-load.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'modprobe virtio_net; ip link set lo up; ip addr add $address dev eth0; ip link set eth0 up'
[Install]
WantedBy=multi-user.target
UNIT
for mode in echo control; do
    cat >/etc/systemd/system/demo-$mode.service <<UNIT
[Unit]
Description=Demo agent ($mode)
After=demo-network.service
Requires=demo-network.service
[Service]
ExecStart=/usr/bin/python3 /opt/demo/agent.py $mode
Restart=always
$([ $mode = echo ] && echo CPUSchedulingPolicy=fifo)
[Install]
WantedBy=multi-user.target
UNIT
done
systemctl enable demo-network.service demo-echo.service demo-control.service

# What a guest without users does not need.
systemctl mask getty@tty1.service serial-getty@ttyS0.service \
    systemd-timesyncd.service systemd-networkd.service systemd-resolved.service \
    systemd-udev-trigger.service systemd-udevd.service \
    systemd-udev-settle.service systemd-logind.service \
    systemd-pstore.service systemd-journal-flush.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    systemd-tmpfiles-clean.timer
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc/* /usr/share/man/*
