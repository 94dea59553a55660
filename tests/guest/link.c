/*
 * The test guest's link to the outside: heartbeats, commands and answers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "link.h"
#include "disk.h"
#include "work.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REMEMBERED 16

typedef struct Frame {
    struct ether_header eth;
    uint32_t type;
    uint32_t length;
    uint64_t id;
    char text[LINK_TEXT_MAX];
} __attribute__((packed)) Frame;

typedef struct HeartbeatFrame {
    struct ether_header eth;
    uint32_t type;
    uint32_t zero;
    LinkHeartbeat beat;
} __attribute__((packed)) HeartbeatFrame;

typedef struct Command {
    uint64_t id;
    bool answered;
    char line[LINK_TEXT_MAX];
    char answer[LINK_TEXT_MAX];
} Command;

static int link_fd = -1;
static uint8_t mac[ETH_ALEN];

static pthread_mutex_t command_lock = PTHREAD_MUTEX_INITIALIZER;
static Command *commands[REMEMBERED];   /* protected by command_lock */
static unsigned command_next;           /* protected by command_lock */

static void frame_header(struct ether_header *eth)
{
    memset(eth->ether_dhost, 0xff, ETH_ALEN);
    memcpy(eth->ether_shost, mac, ETH_ALEN);
    eth->ether_type = htons(LINK_ETHERTYPE);
}

static bool link_open(void)
{
    struct ifreq ifr = { .ifr_name = "eth0" };
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(LINK_ETHERTYPE),
    };

    link_fd = socket(AF_PACKET, SOCK_RAW, htons(LINK_ETHERTYPE));
    if (link_fd < 0 || ioctl(link_fd, SIOCGIFHWADDR, &ifr) < 0) {
        return false;
    }
    memcpy(mac, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
    ifr.ifr_flags = IFF_UP;
    if (ioctl(link_fd, SIOCSIFFLAGS, &ifr) < 0 ||
        ioctl(link_fd, SIOCGIFINDEX, &ifr) < 0) {
        return false;
    }
    addr.sll_ifindex = ifr.ifr_ifindex;
    return bind(link_fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
}

static void send_heartbeat(uint64_t sequence)
{
    HeartbeatFrame f = { .type = LINK_HEARTBEAT };

    frame_header(&f.eth);
    f.beat = (LinkHeartbeat) {
        .sequence = sequence,
        .guest_ns = now_ns(),
        .writes = __atomic_load_n(&counters.writes, __ATOMIC_RELAXED),
        .reads = __atomic_load_n(&counters.reads, __ATOMIC_RELAXED),
        .discards = __atomic_load_n(&counters.discards, __ATOMIC_RELAXED),
        .flushes = __atomic_load_n(&counters.flushes, __ATOMIC_RELAXED),
        .errors = __atomic_load_n(&counters.errors, __ATOMIC_RELAXED),
        .worst_write_us = __atomic_exchange_n(&counters.worst_write_us, 0,
                                              __ATOMIC_RELAXED),
        .worst_read_us = __atomic_exchange_n(&counters.worst_read_us, 0,
                                             __ATOMIC_RELAXED),
        .rounds = __atomic_load_n(&counters.rounds, __ATOMIC_ACQUIRE),
        .worst_flush_us = __atomic_exchange_n(&counters.worst_flush_us, 0,
                                              __ATOMIC_RELAXED),
    };
    send(link_fd, &f, sizeof(f), 0);
}

static void *heartbeat_run(void *opaque)
{
    struct sched_param param = { .sched_priority = 50 };
    const char *ms = getenv("beat_ms");
    uint64_t period = (ms ? atoi(ms) : LINK_HEARTBEAT_MS) * 1000000ull;
    uint64_t due = now_ns();

    pthread_setschedparam(pthread_self(), SCHED_FIFO, &param);
    for (uint64_t sequence = 1; ; sequence++) {
        struct timespec ts;
        uint64_t now = now_ns();

        due += period;
        if (due < now) {
            due = now;      /* beats missed are not made up for */
        }
        ts.tv_sec = due / 1000000000;
        ts.tv_nsec = due % 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
        send_heartbeat(sequence);
    }
    return NULL;
}

static void send_answer(const Command *c)
{
    Frame f = {
        .type = LINK_ANSWER,
        .length = strlen(c->answer),
        .id = c->id,
    };

    frame_header(&f.eth);
    memcpy(f.text, c->answer, f.length);
    send(link_fd, &f, offsetof(Frame, text) + f.length, 0);
}

static void *command_run(void *opaque)
{
    Command *c = opaque;
    char answer[LINK_TEXT_MAX];

    work_command(c->line, answer, sizeof(answer));
    pthread_mutex_lock(&command_lock);
    memcpy(c->answer, answer, sizeof(answer));
    c->answered = true;
    send_answer(c);
    pthread_mutex_unlock(&command_lock);
    return NULL;
}

/* Commands are remembered after they are done; the oldest are dropped. */
static void command_new(const Frame *f)
{
    Command **slot = &commands[command_next];
    pthread_attr_t attr;
    pthread_t thread;

    if (*slot && !(*slot)->answered) {
        return;             /* too many at once: the host will repeat it */
    }
    command_next = (command_next + 1) % REMEMBERED;
    free(*slot);
    *slot = calloc(1, sizeof(**slot));
    (*slot)->id = f->id;
    memcpy((*slot)->line, f->text, f->length);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_create(&thread, &attr, command_run, *slot);
    pthread_attr_destroy(&attr);
}

static void command_received(const Frame *f)
{
    pthread_mutex_lock(&command_lock);
    for (int i = 0; i < REMEMBERED; i++) {
        Command *c = commands[i];

        if (c && c->id == f->id) {
            if (c->answered) {
                send_answer(c);
            }
            pthread_mutex_unlock(&command_lock);
            return;
        }
    }
    command_new(f);
    pthread_mutex_unlock(&command_lock);
}

void link_serve(void)
{
    pthread_t thread;

    if (!link_open()) {
        perror("workload: eth0");
        return;
    }
    pthread_create(&thread, NULL, heartbeat_run, NULL);
    printf("workload: ready, %d disks\n", disk_count);
    for (;;) {
        Frame f;
        ssize_t len = recv(link_fd, &f, sizeof(f), 0);

        if (len >= (ssize_t)offsetof(Frame, text) &&
            f.type == LINK_COMMAND && f.length < sizeof(f.text) &&
            len >= (ssize_t)(offsetof(Frame, text) + f.length)) {
            command_received(&f);
        }
    }
}
