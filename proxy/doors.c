/* doors.c: accepts clients at the sockets that a worker serves. */
#include "proxy/doors.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pgshunt/log.h"
#include "proxy/client.h"
#include "proxy/worker.h"

#define ACCEPTS_PER_TURN 64

struct door {
    struct list_node node; /* worker->doors */
    uv_poll_t poll;
    struct listen_socket socket;
};

static void accept_clients(uv_poll_t *poll, int status, int events)
{
    struct worker *worker = poll->data;
    const struct door *door = list_entry(poll, struct door, poll);
    (void)events;
    for (int i = 0; status == 0 && i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage address;
        socklen_t length = sizeof address;
        int fd = accept4(door->socket.fd, (struct sockaddr *)&address, &length,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE))
            log_event(LOG_ERROR, "cannot accept a client: out of file descriptors");
        if (fd < 0)
            return;
        atomic_fetch_add(&worker->daemon->connections, 1);
        client_accept(worker, fd, peer_of(&address, door->socket.tag));
    }
}

static void free_door(uv_handle_t *handle)
{
    free(list_entry((uv_poll_t *)handle, struct door, poll));
}

static void open_door(struct worker *worker, const struct listen_socket *socket)
{
    struct door *door = mem_alloc(sizeof *door);
    door->socket = *socket;
    uv_poll_init(&worker->loop, &door->poll, socket->fd);
    door->poll.data = worker;
    uv_poll_start(&door->poll, UV_READABLE, accept_clients);
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

void doors_close(struct worker *worker)
{
    while (!list_empty(&worker->doors)) {
        struct door *door = list_entry(worker->doors.next, struct door, node);
        list_remove(&door->node);
        uv_poll_stop(&door->poll);
        uv_close((uv_handle_t *)&door->poll, free_door);
        close(door->socket.fd);
    }
}
