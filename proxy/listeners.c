/* listeners.c: opens the sockets that clients connect to, and deals them out to workers. */
#include "proxy/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pgshunt/log.h"
#include "proxy/tcp.h"

/* ---- opening ---- */

static int open_socket(const struct listen_points *points, const struct listen_point *point,
                       int backlog)
{
    int fd = socket(point->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (listen_points_split(points, point))
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)&point->address, point->length) == 0 &&
        listen(fd, backlog) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static void put(struct listeners *listeners, int fd, int point, enum listen_tag tag)
{
    listeners->sockets[listeners->count++] =
        (struct listen_socket){.fd = fd, .point = point, .tag = tag};
}

/* A machine without IPv6 still listens at what "localhost" is in IPv4. */
static bool may_do_without(const struct listen_point *point, int problem)
{
    return point->optional && (problem == EAFNOSUPPORT || problem == EADDRNOTAVAIL);
}

static bool open_point(struct listeners *listeners, const struct listen_points *points, int index,
                       int backlog, int count, char *error, size_t size)
{
    const struct listen_point *point = &points->points[index];
    char name[300];
    listen_point_name(point, name, sizeof name);
    if (listeners->count + count > LISTENERS_MAX) {
        snprintf(error, size,
                 "cannot listen on %s: more than %d sockets (each worker has one for "
                 "each address and port)",
                 name, LISTENERS_MAX);
        return false;
    }
    for (int i = 0; i < count; i++) {
        int fd = open_socket(points, point, backlog);
        if (fd < 0 && may_do_without(point, errno)) {
            log_event(LOG_WARNING, "an address is left out", LOG_S("address", name),
                      LOG_S("reason", strerror(errno)));
            return true;
        }
        if (fd < 0) {
            snprintf(error, size, "cannot listen on %s: %s", name, strerror(errno));
            return false;
        }
        put(listeners, fd, index, point->tag);
    }
    return true;
}

/* ---- what was adopted ---- */

static int point_of(const struct listen_points *points, int fd)
{
    struct sockaddr_storage bound = {0};
    socklen_t length = sizeof bound;
    if (getsockname(fd, (struct sockaddr *)&bound, &length) != 0)
        return -1;
    for (int i = 0; i < points->count; i++)
        if (listen_point_is(&points->points[i], &bound, length))
            return i;
    return -1;
}

static void sort_adopted(struct listeners *listeners, const struct listen_points *points)
{
    int kept = 0;
    for (int i = 0; i < listeners->count; i++) {
        struct listen_socket socket = listeners->sockets[i];
        socket.point = point_of(points, socket.fd);
        if (socket.point < 0) {
            close(socket.fd); /* no longer wanted */
            continue;
        }
        socket.tag = points->points[socket.point].tag;
        listeners->sockets[kept++] = socket;
    }
    listeners->count = kept;
}

static int count_at(const struct listeners *listeners, int point)
{
    int count = 0;
    for (int i = 0; i < listeners->count; i++)
        count += listeners->sockets[i].point == point;
    return count;
}

bool listeners_open(struct listeners *listeners, const struct config *config, int workers,
                    char *error, size_t size)
{
    struct listen_points points;
    bool ok = listen_points_find(&points, config, error, size);
    if (ok)
        sort_adopted(listeners, &points);
    for (int i = 0; ok && i < points.count; i++)
        if (!count_at(listeners, i))
            ok = open_point(listeners, &points, i, config->listen_backlog, workers, error, size);
    if (ok && !listeners->count) {
        snprintf(error, size, "there is no address of listen.address \"%s\" to listen on",
                 config->listen_address);
        ok = false;
    }
    if (ok)
        listeners_tune(listeners, &config->tcp);
    else
        listeners_close(listeners);
    return ok;
}

/* Two descriptors of one socket have the same cookie. */
static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length);
    return cookie;
}

static bool is_there(const struct listeners *listeners, uint64_t cookie)
{
    for (int i = 0; i < listeners->count; i++)
        if (cookie && cookie_of(listeners->sockets[i].fd) == cookie)
            return true;
    return false;
}

void listeners_adopt(struct listeners *listeners, const int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        if (listeners->count == LISTENERS_MAX || is_there(listeners, cookie_of(fds[i])))
            close(fds[i]);
        else
            put(listeners, fds[i], -1, LISTEN_PLAIN);
    }
}

/* ---- dealing out ---- */

static int duplicate(const struct listen_socket *socket, bool shared, struct listen_socket *out)
{
    int fd = fcntl(socket->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    *out = *socket;
    out->fd = fd;
    out->shared = shared;
    return 1;
}

/* The n-th socket of a point goes to worker n; where there are more, further rounds; where there are fewer,
 * they are shared. */
static bool is_for(int nth, int sockets, int index, int workers)
{
    return index < sockets ? nth % workers == index : nth == index % sockets;
}

int listeners_share(const struct listeners *listeners, int index, int workers,
                    struct listen_socket out[LISTENERS_MAX])
{
    int count = 0, nth[LISTEN_POINTS_MAX + 1] = {0};
    for (int i = 0; i < listeners->count; i++) {
        const struct listen_socket *socket = &listeners->sockets[i];
        int sockets = count_at(listeners, socket->point);
        if (is_for(nth[socket->point + 1]++, sockets, index, workers))
            count += duplicate(socket, sockets < workers, &out[count]);
    }
    return count;
}

void listeners_tune(struct listeners *listeners, const struct tcp_settings *settings)
{
    pthread_mutex_lock(&listeners->lock);
    for (int i = 0; i < listeners->count; i++)
        tcp_tune_listener(listeners->sockets[i].fd, settings);
    pthread_mutex_unlock(&listeners->lock);
}

void listeners_close(struct listeners *listeners)
{
    pthread_mutex_lock(&listeners->lock);
    while (listeners->count)
        close(listeners->sockets[--listeners->count].fd);
    pthread_mutex_unlock(&listeners->lock);
}
