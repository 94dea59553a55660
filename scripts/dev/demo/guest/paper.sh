#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makes the guest where apps.sh has run also that of the paper's workloads: a
# dynamic web site, a video server, and Bonnie++. Runs inside the tree (in a
# chroot) while the image is made.
set -eu
export LC_ALL=C.UTF-8

# The web site: a bank, pages computed by PHP from PostgreSQL.
php=$(ls /etc/php | sort -V | tail -n 1)
cat >/etc/nginx/sites-enabled/bench <<CONF
keepalive_requests 1000000;
server {
    listen 80;
    root /srv/www;
    location = /bank {
        fastcgi_pass unix:/run/php/php$php-fpm.sock;
        include fastcgi_params;
        fastcgi_param SCRIPT_FILENAME /opt/demo/bank.php;
    }
}
CONF
cat >"/etc/php/$php/fpm/pool.d/zz-bench.conf" <<'CONF'
[www]
pm = static
pm.max_children = 4
CONF
# A file that is open and has no name would look like damage in the end.
echo 'opcache.lockfile_path = /run' >"/etc/php/$php/fpm/conf.d/99-bench.ini"

version=$(ls /usr/lib/postgresql | sort -V | tail -n 1)
as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups env -C /"
pg_ctlcluster "$version" main start -o '-c fsync=off'
$as_postgres createdb bank
$as_postgres psql -qX -v ON_ERROR_STOP=1 bank <<'SQL'
create table customers (
    id integer primary key, name text not null, seen timestamptz);
create table accounts (
    id integer primary key, owner integer not null references customers,
    balance bigint not null);
create table transfers (
    id bigint primary key, source integer not null, target integer not null,
    amount bigint not null, remark text not null,
    at timestamptz not null default now());
insert into customers
    select n, 'Customer ' || n from generate_series(1, 1000) n;
insert into accounts
    select n, (n + 1) / 2, 1000000 from generate_series(1, 2000) n;
-- Old ones, which are in the balances already, have ids below 0
insert into transfers
    select -n, n % 2000 + 1, n * 7 % 2000 + 1, n % 1000, md5(n::text)
    from generate_series(1, 40000) n;
create index on accounts (owner);
create index on transfers (source);
create index on transfers (target);
analyze;
checkpoint;
SQL
pg_ctlcluster "$version" main stop -m fast

# The film: a stream of bytes that nobody can guess.
mkdir -p /srv/video
head -c 24M /dev/urandom >/srv/video/film
cat >/etc/systemd/system/demo-video.service <<'UNIT'
[Unit]
Description=Video server of the demo guest
After=demo-network.service
Requires=demo-network.service
[Service]
ExecStart=/usr/bin/python3 /opt/demo/video.py
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
systemctl enable demo-video.service

mkdir -p /srv/bonnie
