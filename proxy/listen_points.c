/* listen_points.c: finds the addresses that the configuration's names stand for. */
#include "proxy/listen_points.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "pgshunt/unixpath.h"

#define NAME_MAX_LENGTH 255
#define BLANKS " \t"

bool listen_point_is(const struct listen_point *point, const struct sockaddr_storage *address,
                     socklen_t length)
{
    return point->length == length && memcmp(&point->address, address, length) == 0;
}

const char *listen_point_path(const struct listen_point *point)
{
    return ((const struct sockaddr_un *)&point->address)->sun_path;
}

void listen_point_name(const struct listen_point *point, char *out, size_t size)
{
    char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";
    if (listen_point_is_unix(point)) {
        snprintf(out, size, "%s", listen_point_path(point));
        return;
    }
    getnameinfo((const struct sockaddr *)&point->address, point->length, host, sizeof host, port,
                sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(out, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static bool is_every_v4(const struct sockaddr_storage *address, in_port_t port)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    return address->ss_family == AF_INET && v4->sin_addr.s_addr == htonl(INADDR_ANY) &&
           v4->sin_port == port;
}

bool listen_points_split(const struct listen_points *points, const struct listen_point *point)
{
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&point->address;
    if (point->address.ss_family != AF_INET6 || !IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr))
        return false;
    for (int i = 0; i < points->count; i++)
        if (is_every_v4(&points->points[i].address, v6->sin6_port))
            return true;
    return false;
}

static bool is_there(const struct listen_points *points, const struct listen_point *point)
{
    for (int i = 0; i < points->count; i++)
        if (listen_point_is(&points->points[i], &point->address, point->length))
            return true;
    return false;
}

static bool add_point(struct listen_points *points, const void *address, socklen_t length,
                      bool optional, enum listen_tag tag)
{
    struct listen_point point = {.length = length, .tag = tag, .optional = optional};
    if (length > sizeof point.address)
        return true;
    memcpy(&point.address, address, length);
    if (is_there(points, &point))
        return true;
    if (points->count == LISTEN_POINTS_MAX)
        return false;
    points->points[points->count++] = point;
    return true;
}

static const char *setting_of(const struct listen_points *points)
{
    return points->setting ? points->setting : "listen.address";
}

static bool add_name(struct listen_points *points, const char *name, int port, enum listen_tag tag,
                     char *error, size_t size)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    int failed = getaddrinfo(strcmp(name, "*") == 0 ? NULL : name, service, &hints, &found);
    if (failed) {
        snprintf(error, size, "cannot resolve \"%s\" of %s: %s", name, setting_of(points),
                 gai_strerror(failed));
        return false;
    }
    bool room = true, several = found->ai_next;
    for (const struct addrinfo *at = found; at && room; at = at->ai_next)
        room = add_point(points, at->ai_addr, at->ai_addrlen, several, tag);
    freeaddrinfo(found);
    if (!room)
        snprintf(error, size, "%s stands for more than %d addresses and ports", setting_of(points),
                 LISTEN_POINTS_MAX);
    return room;
}

bool listen_points_add(struct listen_points *points, const char *addresses, int port,
                       enum listen_tag tag, char *error, size_t size)
{
    for (const char *at = addresses;;) {
        char name[NAME_MAX_LENGTH + 1];
        at += strspn(at, BLANKS);
        size_t length = strcspn(at, ","), end = length;
        while (end && strchr(BLANKS, at[end - 1]))
            end--;
        if (!end || end > NAME_MAX_LENGTH) {
            snprintf(error, size, "%s \"%s\" has %s between its commas", setting_of(points),
                     addresses, end ? "a name that is too long" : "nothing");
            return false;
        }
        snprintf(name, sizeof name, "%.*s", (int)end, at);
        if (!add_name(points, name, port, tag, error, size))
            return false;
        if (!at[length])
            return true;
        at += length + 1;
    }
}

bool listen_points_add_unix(struct listen_points *points, const char *directory, int port,
                            enum listen_tag tag, char *error, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!unix_path(address.sun_path, directory, port)) {
        snprintf(error, size, "listen.unix_socket_dir \"%s\" is too long for a socket's path",
                 directory);
        return false;
    }
    size_t length = offsetof(struct sockaddr_un, sun_path) + strlen(address.sun_path) + 1;
    if (add_point(points, &address, (socklen_t)length, false, tag))
        return true;
    snprintf(error, size, "there are more than %d addresses and ports to listen on",
             LISTEN_POINTS_MAX);
    return false;
}

bool listen_points_add_port(struct listen_points *points, const struct config *config, int port,
                            enum listen_tag tag, char *error, size_t size)
{
    /* The unix socket first: a lock may have to be waited for, and who waits for the start tries the port. */
    return (!config->unix_socket_dir[0] ||
            listen_points_add_unix(points, config->unix_socket_dir, port, tag, error, size)) &&
           listen_points_add(points, config->listen_address, port, tag, error, size);
}

bool listen_points_find(struct listen_points *points, const struct config *config, char *error,
                        size_t size)
{
    points->count = 0;
    points->setting = NULL;
    return listen_points_add_port(points, config, config->listen_port, LISTEN_PLAIN, error, size) &&
           (!config->primary_port || listen_points_add_port(points, config, config->primary_port,
                                                            LISTEN_PRIMARY, error, size)) &&
           (!config->replica_port || listen_points_add_port(points, config, config->replica_port,
                                                            LISTEN_REPLICA, error, size));
}
