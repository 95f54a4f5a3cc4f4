/* tcp.c: sets TCP options of sockets. */
#include "proxy/tcp.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

/* In seconds, rounded up, as 0 means something else. */
static int seconds(int64_t ms)
{
    return (int)((ms + 999) / 1000);
}

static void set(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof value);
}

static void set_some(int fd, int option, int value)
{
    if (value)
        set(fd, IPPROTO_TCP, option, value);
}

void tcp_tune_connection(int fd, const struct tcp_settings *settings)
{
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (settings->keepalive) {
        set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set_some(fd, TCP_KEEPIDLE, seconds(settings->keepalive_idle));
        set_some(fd, TCP_KEEPINTVL, seconds(settings->keepalive_interval));
        set_some(fd, TCP_KEEPCNT, settings->keepalive_count);
    }
    set_some(fd, TCP_USER_TIMEOUT, (int)settings->user_timeout);
}

/* What the system gives to a socket that nobody has touched. */
static void set_or_restore(int fd, int untouched, int option, int value)
{
    socklen_t length = sizeof value;
    if (value || getsockopt(untouched, IPPROTO_TCP, option, &value, &length) == 0)
        set(fd, IPPROTO_TCP, option, value);
}

void tcp_tune_listener(int fd, const struct tcp_settings *settings)
{
    int untouched = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (untouched < 0)
        untouched = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, settings->keepalive);
    set_or_restore(fd, untouched, TCP_KEEPIDLE, seconds(settings->keepalive_idle));
    set_or_restore(fd, untouched, TCP_KEEPINTVL, seconds(settings->keepalive_interval));
    set_or_restore(fd, untouched, TCP_KEEPCNT, settings->keepalive_count);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)settings->user_timeout);
    if (untouched >= 0)
        close(untouched);
}
