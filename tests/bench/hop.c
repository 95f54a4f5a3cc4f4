/*
 * hop.c: a network between the proxy and its servers, for `make bench-sharding`: what goes through arrives later.
 *
 *     hop --delay MICROSECONDS --pair PORT:TO_PORT [--pair ...]
 *
 * Each piece of bytes is given on MICROSECONDS after it came, in each direction, so a round trip takes twice as long.
 * Pieces do not wait for each other: as on a wire, what follows closely arrives closely behind. All on 127.0.0.1, in
 * one thread, which sleeps to the next moment that something is due (ppoll: timers of libuv count milliseconds).
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE 65536
#define LISTENERS_MAX 16
#define SIDES_MAX 1024 /* two for each connection, next to each other */

struct piece {
    struct piece *next;
    int64_t due; /* ns */
    size_t at, end;
    char bytes[];
};

/* One end of a connection; fd -1: free. Pieces are owned, and on their way to it. */
struct side {
    int fd;
    bool blocked; /* its socket takes nothing now */
    struct piece *first, **last;
};

struct listener {
    int fd, to;
};

static struct listener listeners[LISTENERS_MAX];
static struct side sides[SIDES_MAX];
static int nlisteners, nsides;
static int64_t delay;
static volatile sig_atomic_t stopped;

static void die(const char *what)
{
    fprintf(stderr, "hop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct sockaddr_in local(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* ---- connections ---- */

static void side_open(struct side *side, int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *side = (struct side){.fd = fd};
    side->last = &side->first;
}

static void side_close(struct side *side)
{
    close(side->fd);
    side->fd = -1;
    while (side->first) {
        struct piece *piece = side->first;
        side->first = piece->next;
        free(piece);
    }
}

static struct side *peer_of(struct side *side)
{
    return &sides[(side - sides) ^ 1];
}

static void pair_close(struct side *side)
{
    side_close(peer_of(side));
    side_close(side);
}

static int free_pair(void)
{
    for (int i = 0; i < nsides; i += 2)
        if (sides[i].fd < 0)
            return i;
    if (nsides + 2 > SIDES_MAX)
        return -1;
    nsides += 2;
    return nsides - 2;
}

/* A connect on the same host is done, or refused, at once. */
static void accept_pair(const struct listener *listener)
{
    struct sockaddr_in to = local(listener->to);
    int client = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0)
        return;
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), at = free_pair();
    if (server < 0 || at < 0 || connect(server, (struct sockaddr *)&to, sizeof to)) {
        close(client);
        if (server >= 0)
            close(server);
        if (at >= 0)
            sides[at].fd = sides[at + 1].fd = -1;
        return;
    }
    side_open(&sides[at], client);
    side_open(&sides[at + 1], server);
}

/* ---- bytes ---- */

/* False: the connection is at its end. */
static bool take(struct side *from)
{
    struct side *to = peer_of(from);
    struct piece *piece = malloc(sizeof *piece + PIECE);
    if (!piece)
        die("malloc");
    ssize_t got = recv(from->fd, piece->bytes, PIECE, MSG_DONTWAIT);
    if (got <= 0) {
        free(piece);
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    }
    *piece = (struct piece){.due = now_ns() + delay, .end = (size_t)got};
    *to->last = piece;
    to->last = &piece->next;
    return true;
}

/* Gives on what is due. False: the connection is broken. */
static bool give(struct side *to, int64_t now)
{
    to->blocked = false;
    while (to->first && to->first->due <= now) {
        struct piece *piece = to->first;
        ssize_t sent = send(to->fd, piece->bytes + piece->at, piece->end - piece->at,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        piece->at += sent > 0 ? (size_t)sent : 0;
        if (piece->at < piece->end) {
            to->blocked = true;
            return true;
        }
        to->first = piece->next;
        if (!to->first)
            to->last = &to->first;
        free(piece);
    }
    return true;
}

/* ---- the loop ---- */

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

/* When the next piece is due; -1: none is on its way. */
static int64_t next_due(void)
{
    int64_t due = -1;
    for (int i = 0; i < nsides; i++) {
        const struct side *side = &sides[i];
        if (side->fd >= 0 && side->first && !side->blocked && (due < 0 || side->first->due < due))
            due = side->first->due;
    }
    return due;
}

static void wait_for_any(struct pollfd *polls)
{
    int64_t due = next_due(), left = due < 0 ? 0 : due - now_ns();
    struct timespec timeout = {.tv_nsec = 0};
    if (left > 0)
        timeout = (struct timespec){left / 1000000000, left % 1000000000};
    for (int i = 0; i < nlisteners; i++)
        polls[i] = (struct pollfd){.fd = listeners[i].fd, .events = POLLIN};
    for (int i = 0; i < nsides; i++)
        polls[nlisteners + i] = (struct pollfd){
            .fd = sides[i].fd, .events = (short)(POLLIN | (sides[i].blocked ? POLLOUT : 0))};
    if (ppoll(polls, (nfds_t)(nlisteners + nsides), due < 0 ? NULL : &timeout, NULL) < 0 &&
        errno != EINTR)
        die("ppoll");
}

static void turn(void)
{
    struct pollfd polls[LISTENERS_MAX + SIDES_MAX];
    int before = nsides;
    wait_for_any(polls);
    for (int i = 0; i < before; i++)
        if (sides[i].fd >= 0 && polls[nlisteners + i].revents & (POLLIN | POLLHUP | POLLERR) &&
            !take(&sides[i]))
            pair_close(&sides[i]);
    int64_t now = now_ns();
    for (int i = 0; i < nsides; i++)
        if (sides[i].fd >= 0 && !give(&sides[i], now))
            pair_close(&sides[i]);
    for (int i = 0; i < nlisteners; i++)
        if (polls[i].revents & POLLIN)
            accept_pair(&listeners[i]);
}

/* ---- command line ---- */

static void usage(int status)
{
    fprintf(status ? stderr : stdout,
            "usage: hop --delay MICROSECONDS --pair PORT:TO_PORT [--pair ...]\n");
    exit(status);
}

static void add_listener(const char *text)
{
    int port, to, one = 1;
    if (sscanf(text, "%d:%d", &port, &to) != 2 || port < 1 || port > 65535 || to < 1 ||
        to > 65535 || nlisteners == LISTENERS_MAX)
        usage(1);
    struct sockaddr_in at = local(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
        bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 128))
        die(text);
    listeners[nlisteners++] = (struct listener){fd, to};
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"delay", required_argument, NULL, 'd'},
                                            {"pair", required_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'd')
            delay = atoll(optarg) * 1000;
        else if (c == 'p')
            add_listener(optarg);
        else
            usage(c != 'h');
    }
    if (!nlisteners || delay < 0 || optind != argc)
        usage(1);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    while (!stopped)
        turn();
    while (nsides > 0) {
        nsides -= 2;
        if (sides[nsides].fd >= 0)
            pair_close(&sides[nsides]);
    }
    return 0;
}
