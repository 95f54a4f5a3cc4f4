/* test_tcp.c: what is set on a listening socket is true of the connections accepted from it. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/tcp.h"

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &length), 0);
    return value;
}

static void assert_options(int fd, int keepalive, int idle, int interval, int count, int timeout)
{
    assert_int_not_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
    assert_int_equal(!!option(fd, SOL_SOCKET, SO_KEEPALIVE), keepalive);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), idle);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), interval);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPCNT), count);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), timeout);
}

/* The end that a server has of a new connection to the listener. */
static int accepted(int listener, int *client)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    *client = socket(address.ss_family, SOCK_STREAM, 0);
    assert_int_equal(connect(*client, (struct sockaddr *)&address, length), 0);
    int fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    return fd;
}

static int listener_in(int family)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const void *address = family == AF_INET ? (void *)&v4 : (void *)&v6;
    int fd = socket(family, SOCK_STREAM, 0);
    if (fd >= 0 && bind(fd, address, family == AF_INET ? sizeof v4 : sizeof v6) == 0) {
        assert_int_equal(listen(fd, 8), 0);
        return fd;
    }
    assert_int_equal(family, AF_INET6); /* a machine may be without */
    return -1;
}

static void check_listener(int listener)
{
    struct tcp_settings some = {true, 61000, 7500, 4, 90000}, none = {.keepalive = false};
    int untouched = socket(AF_INET, SOCK_STREAM, 0), client;
    int idle = option(untouched, IPPROTO_TCP, TCP_KEEPIDLE);
    int interval = option(untouched, IPPROTO_TCP, TCP_KEEPINTVL);
    int count = option(untouched, IPPROTO_TCP, TCP_KEEPCNT);
    close(untouched);

    tcp_tune_listener(listener, &some);
    int before = accepted(listener, &client);
    assert_options(before, 1, 61, 8, 4, 90000);
    close(client);
    tcp_tune_listener(listener, &none);
    assert_options(before, 1, 61, 8, 4, 90000);
    int after = accepted(listener, &client);
    assert_options(after, 0, idle, interval, count, 0);
    close(client);
    close(before);
    close(after);
}

static void test_accepted(void **state)
{
    static const int families[] = {AF_INET, AF_INET6};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        int listener = listener_in(families[i]);
        if (listener < 0)
            continue;
        check_listener(listener);
        close(listener);
    }
}

static void test_connecting(void **state)
{
    struct tcp_settings some = {true, 1, 1000, 127, 1}, none = {.keepalive = false};
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM, 0), other = socket(AF_INET, SOCK_STREAM, 0);
    int idle = option(fd, IPPROTO_TCP, TCP_KEEPIDLE);
    int interval = option(fd, IPPROTO_TCP, TCP_KEEPINTVL);
    int count = option(fd, IPPROTO_TCP, TCP_KEEPCNT);
    tcp_tune_connection(fd, &some);
    assert_options(fd, 1, 1, 1, 127, 1);
    tcp_tune_connection(other, &none);
    assert_options(other, 0, idle, interval, count, 0);
    close(fd);
    close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_connecting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
