/* doors.c: accepts clients at the sockets that a worker serves. */
#include "proxy/doors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pgshunt/log.h"
#include "proxy/client.h"
#include "proxy/worker.h"

#define ACCEPTS_PER_TURN 64
#define SAY_EVERY_US 1000000

struct door {
    struct list_node node; /* worker->doors */
    struct watch watch;
    struct worker *worker;
    struct listen_socket socket;
    uint64_t turn; /* in which there was a client last */
    int burst;     /* clients to accept in the next one */
    bool rests;    /* not watched until doors_tick() */
};

/* There is no room for a client: it would be tried again at once, and at once again. */
static void rest(struct door *door, int problem)
{
    static _Atomic int64_t said_at;
    int64_t now = clock_us(), last = atomic_load(&said_at);
    watch_change(&door->watch, 0);
    door->rests = true;
    if (now - last >= SAY_EVERY_US && atomic_compare_exchange_strong(&said_at, &last, now))
        log_event(LOG_ERROR, "cannot accept clients, who wait", LOG_S("reason", strerror(problem)));
}

static bool accept_client(struct door *door)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    int fd = accept4(door->socket.fd, (struct sockaddr *)&address, &length,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
        rest(door, errno);
    if (fd < 0)
        return false;
    atomic_fetch_add(&door->worker->daemon->connections, 1);
    client_accept(door->worker, fd, peer_of(&address, door->socket.tag));
    return true;
}

/* One client is accepted without asking whether there are more, which the next turn tells: then twice as
 * many are. */
static void accept_clients(struct watch *watch, uint32_t events)
{
    struct door *door = list_entry(watch, struct door, watch);
    bool again = door->turn + 1 == watch->poller->turns;
    (void)events;
    door->burst = !again ? 1 : door->burst < ACCEPTS_PER_TURN ? door->burst * 2 : ACCEPTS_PER_TURN;
    door->turn = watch->poller->turns;
    for (int i = 0; i < door->burst && accept_client(door); i++)
        ;
}

static void free_door(struct watch *watch)
{
    free(list_entry(watch, struct door, watch));
}

static void open_door(struct worker *worker, const struct listen_socket *socket)
{
    struct door *door = mem_alloc(sizeof *door);
    door->socket = *socket;
    door->worker = worker;
    door->burst = 1;
    if (!watch_begin(&door->watch, &worker->poller, socket->fd, EPOLLIN, accept_clients)) {
        log_event(LOG_ERROR, "cannot watch a listening socket", LOG_S("error", strerror(errno)));
        close(socket->fd);
        free(door);
        return;
    }
    list_push_back(&worker->doors, &door->node);
}

void doors_open(struct worker *worker)
{
    struct listen_socket sockets[LISTENERS_MAX];
    int workers = worker->topology->config->workers;
    int count = listeners_share(&worker->daemon->listeners, worker->index, workers, sockets);
    for (int i = 0; i < count; i++)
        open_door(worker, &sockets[i]);
}

void doors_tick(struct worker *worker)
{
    list_each(at, following, &worker->doors)
    {
        struct door *door = list_entry(at, struct door, node);
        if (door->rests)
            watch_change(&door->watch, EPOLLIN);
        door->rests = false;
    }
}

void doors_close(struct worker *worker)
{
    while (!list_empty(&worker->doors)) {
        struct door *door = list_entry(worker->doors.next, struct door, node);
        list_remove(&door->node);
        watch_end(&door->watch, free_door);
        close(door->socket.fd);
    }
}
