/*
 * listen_points.h: where clients may connect to, as the configuration has it: each address that a name stands
 * for is a point of its own, and each point has a tag.
 *
 * The tag says what is special about the connections that come in there. It goes from the point to its sockets
 * (listeners.h), to the doors of the workers (doors.h) and to each client (peer.h), which acts on it.
 */
#ifndef PGSHUNT_PROXY_LISTEN_POINTS_H
#define PGSHUNT_PROXY_LISTEN_POINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "pgshunt/config.h"
#include "pgshunt/error.h"

#define LISTEN_POINTS_MAX 32

enum listen_tag {
    LISTEN_PLAIN,   /* nothing is special */
    LISTEN_PRIMARY, /* everything runs on primaries */
    LISTEN_REPLICA, /* everything runs on replicas, or is refused */
};

struct listen_point {
    struct sockaddr_storage address;
    socklen_t length;
    enum listen_tag tag;
    bool optional; /* its name stands for others too: may be of a family that the machine has not */
};

struct listen_points {
    struct listen_point points[LISTEN_POINTS_MAX];
    int count;
    const char *setting; /* whose names these are, for errors; NULL: listen.address */
};

static inline bool listen_point_is_unix(const struct listen_point *point)
{
    return point->address.ss_family == AF_UNIX;
}
/* All that the configuration names. False: `error` says why. */
MUST_CHECK bool listen_points_find(struct listen_points *points, const struct config *config,
                                   char *error, size_t size);
/* Adds a port wherever clients may connect to: listen.address and, if there is one, listen.unix_socket_dir. */
MUST_CHECK bool listen_points_add_port(struct listen_points *points, const struct config *config,
                                       int port, enum listen_tag tag, char *error, size_t size);
/* Adds a port on each of the `addresses`: names and addresses with commas between; "*": all. */
MUST_CHECK bool listen_points_add(struct listen_points *points, const char *addresses, int port,
                                  enum listen_tag tag, char *error, size_t size);
/* Adds the unix socket that stands for the port in a directory. */
MUST_CHECK bool listen_points_add_unix(struct listen_points *points, const char *directory,
                                       int port, enum listen_tag tag, char *error, size_t size);
/* The path of a unix socket. */
const char *listen_point_path(const struct listen_point *point);
/* "127.0.0.1:6432", "[::1]:6432", "/run/pgshunt/.s.PGSQL.6432" */
void listen_point_name(const struct listen_point *point, char *out, size_t size);
bool listen_point_is(const struct listen_point *point, const struct sockaddr_storage *address,
                     socklen_t length);
/* "::", where "0.0.0.0" of the same port is a point too: then it takes no IPv4. */
bool listen_points_split(const struct listen_points *points, const struct listen_point *point);

#endif
