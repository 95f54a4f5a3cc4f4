/* listeners.c: opens the sockets that clients connect to, and deals them out to workers. */
#include "proxy/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int listen_on(const struct addrinfo *address, int backlog)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, backlog) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static int open_listener(const struct config *config, char *error, size_t error_size)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    char port[16];
    snprintf(port, sizeof port, "%d", config->listen_port);
    const char *host = strcmp(config->listen_address, "*") == 0 ? NULL : config->listen_address;
    int failed = getaddrinfo(host, port, &hints, &found);
    if (failed) {
        snprintf(error, error_size, "cannot resolve listen.address \"%s\": %s",
                 config->listen_address, gai_strerror(failed));
        return -1;
    }
    int fd = listen_on(found, config->listen_backlog);
    if (fd < 0)
        snprintf(error, error_size, "cannot listen on %s:%s: %s", config->listen_address, port,
                 strerror(errno));
    freeaddrinfo(found);
    return fd;
}

bool listeners_open(struct listeners *listeners, const struct config *config, int count,
                    char *error, size_t size)
{
    for (int i = 0; i < count; i++) {
        int fd = open_listener(config, error, size);
        if (fd < 0) {
            listeners_close(listeners);
            return false;
        }
        listeners->fds[listeners->count++] = fd;
    }
    return true;
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
        if (cookie && cookie_of(listeners->fds[i]) == cookie)
            return true;
    return false;
}

void listeners_adopt(struct listeners *listeners, const int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        if (listeners->count == LISTENERS_MAX || is_there(listeners, cookie_of(fds[i])))
            close(fds[i]);
        else
            listeners->fds[listeners->count++] = fds[i];
    }
}

int listeners_share(const struct listeners *listeners, int index, int workers,
                    int out[LISTENERS_MAX])
{
    int count = 0;
    int from = index < listeners->count ? index : index % listeners->count;
    for (int i = from; i < listeners->count; i += workers) {
        int fd = fcntl(listeners->fds[i], F_DUPFD_CLOEXEC, 0);
        if (fd >= 0)
            out[count++] = fd;
        if (index >= listeners->count)
            break;
    }
    return count;
}

void listeners_close(struct listeners *listeners)
{
    while (listeners->count)
        close(listeners->fds[--listeners->count]);
}
