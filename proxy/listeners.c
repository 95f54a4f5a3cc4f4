/* listeners.c: opens the sockets that clients connect to, and deals them out to workers. */
#include "proxy/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pgshunt/log.h"
#include "proxy/tcp.h"
#include "proxy/unix_listener.h"

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
    int family = 0;
    socklen_t length = sizeof family;
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length);
    listeners->sockets[listeners->count++] =
        (struct listen_socket){.fd = fd, .point = point, .tag = tag, .local = family == AF_UNIX};
}

/* One for all workers: unix sockets know no SO_REUSEPORT. */
static bool open_unix(struct listeners *listeners, const struct listen_points *points, int index,
                      const struct config *config, char *error, size_t size)
{
    const struct listen_point *point = &points->points[index];
    int mode = (int)strtol(config->unix_socket_mode, NULL, 8);
    int fd = unix_listener_open(listen_point_path(point), mode, config->unix_socket_group,
                                config->listen_backlog, error, size);
    if (fd >= 0)
        put(listeners, fd, index, point->tag);
    return fd >= 0;
}

/* A machine without IPv6 still listens at what "localhost" is in IPv4. */
static bool may_do_without(const struct listen_point *point, int problem)
{
    return point->optional && (problem == EAFNOSUPPORT || problem == EADDRNOTAVAIL);
}

static bool open_point(struct listeners *listeners, const struct listen_points *points, int index,
                       const struct config *config, int workers, char *error, size_t size)
{
    const struct listen_point *point = &points->points[index];
    char name[300];
    int count = listen_point_is_unix(point) ? 1 : workers;
    listen_point_name(point, name, sizeof name);
    if (listeners->count + count > LISTENERS_MAX) {
        snprintf(error, size,
                 "cannot listen on %s: more than %d sockets (each worker has one for "
                 "each address and port)",
                 name, LISTENERS_MAX);
        return false;
    }
    if (listen_point_is_unix(point))
        return open_unix(listeners, points, index, config, error, size);
    for (int i = 0; i < count; i++) {
        int fd = open_socket(points, point, config->listen_backlog);
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

static bool find_address(int fd, struct listen_point *point)
{
    *point = (struct listen_point){.length = sizeof point->address};
    return getsockname(fd, (struct sockaddr *)&point->address, &point->length) == 0;
}

static int point_of(const struct listen_points *points, int fd)
{
    struct listen_point bound;
    if (!find_address(fd, &bound))
        return -1;
    if (listen_point_is_unix(&bound) && !unix_listener_is_there(listen_point_path(&bound)))
        return -1; /* nobody can connect to it */
    for (int i = 0; i < points->count; i++)
        if (listen_point_is(&points->points[i], &bound.address, bound.length))
            return i;
    return -1;
}

static void give_up(struct listeners *listeners, const struct listen_points *points,
                    const struct listen_socket *socket)
{
    struct listen_point bound;
    bool wanted = !socket->local || !find_address(socket->fd, &bound);
    for (int i = 0; i < points->count && !wanted; i++)
        wanted = listen_point_is(&points->points[i], &bound.address, bound.length);
    if (!wanted && listeners->nunwanted < LISTEN_POINTS_MAX)
        listeners->unwanted[listeners->nunwanted++] = mem_strdup(listen_point_path(&bound));
    close(socket->fd);
}

static void sort_adopted(struct listeners *listeners, const struct listen_points *points)
{
    int kept = 0;
    for (int i = 0; i < listeners->count; i++) {
        struct listen_socket socket = listeners->sockets[i];
        socket.point = point_of(points, socket.fd);
        if (socket.point < 0) {
            give_up(listeners, points, &socket);
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
            ok = open_point(listeners, &points, i, config, workers, error, size);
    if (ok && !listeners->count) {
        snprintf(error, size, "there is no address of listen.address \"%s\" to listen on",
                 config->listen_address);
        ok = false;
    }
    if (ok)
        listeners_tune(listeners, &config->tcp);
    else
        listeners_close(listeners, false);
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
        if (!listeners->sockets[i].local)
            tcp_tune_listener(listeners->sockets[i].fd, settings);
    pthread_mutex_unlock(&listeners->lock);
}

static void forget_unwanted(struct listeners *listeners)
{
    while (listeners->nunwanted)
        free(listeners->unwanted[--listeners->nunwanted]);
}

void listeners_claim(struct listeners *listeners)
{
    struct listen_point bound;
    pthread_mutex_lock(&listeners->lock);
    for (int i = 0; i < listeners->count; i++)
        if (listeners->sockets[i].local && find_address(listeners->sockets[i].fd, &bound))
            unix_listener_claim(listen_point_path(&bound));
    for (int i = 0; i < listeners->nunwanted; i++)
        unix_listener_abandon(listeners->unwanted[i]);
    forget_unwanted(listeners);
    pthread_mutex_unlock(&listeners->lock);
}

void listeners_close(struct listeners *listeners, bool handed_over)
{
    struct listen_point bound;
    pthread_mutex_lock(&listeners->lock);
    while (listeners->count) {
        const struct listen_socket *socket = &listeners->sockets[--listeners->count];
        if (socket->local && !handed_over && find_address(socket->fd, &bound))
            unix_listener_remove(listen_point_path(&bound));
        close(socket->fd);
    }
    forget_unwanted(listeners);
    pthread_mutex_unlock(&listeners->lock);
}
