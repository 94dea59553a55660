#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makes the demo's guest, where setup.sh has run, the one with the benchmark's
# applications. Runs inside the tree (in a chroot) while the image is made.
set -eu

# The database also serves the client outside.
for conf in /etc/postgresql/*/main; do
    echo "listen_addresses = '*'" >>"$conf/conf.d/demo.conf"
    echo 'host all all samenet trust' >>"$conf/pg_hba.conf"
done

# The web server: 128 files of 64 KiB. One connection may ask for ever.
rm /etc/nginx/sites-enabled/default
cat >/etc/nginx/sites-enabled/bench <<'CONF'
keepalive_requests 1000000;
server {
    listen 80;
    root /srv/www;
}
CONF
mkdir -p /srv/www
head -c 8M /dev/urandom | split -b 64K -a 3 -d - /srv/www/file-

# What fio reads and writes.
mkdir -p /srv/fio
head -c 64M /dev/urandom >/srv/fio/data

# Measurements are short: what is written reaches the disk within seconds.
cat >/etc/sysctl.d/bench.conf <<'CONF'
vm.dirty_expire_centisecs = 300
vm.dirty_writeback_centisecs = 100
CONF
