/* test_listeners.c: listening sockets are dealt out so that each is served and each worker has one. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/listeners.h"

/* Any sockets do. */
static void open_sockets(struct listeners *listeners, int count)
{
    int fds[LISTENERS_MAX];
    for (int i = 0; i < count; i++)
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    listeners_adopt(listeners, fds, count);
    assert_int_equal(listeners->count, count);
}

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length), 0);
    return cookie;
}

/* How many of the sockets that workers got are this one. */
static int served(const struct listeners *listeners, int which, int workers)
{
    struct listen_socket sockets[LISTENERS_MAX];
    int found = 0;
    for (int worker = 0; worker < workers; worker++) {
        int count = listeners_share(listeners, worker, workers, sockets);
        assert_true(count > 0);
        while (count) {
            int fd = sockets[--count].fd;
            found += cookie_of(fd) == cookie_of(listeners->sockets[which].fd);
            close(fd);
        }
    }
    return found;
}

static void test_share(void **state)
{
    (void)state;
    for (int sockets = 1; sockets <= 5; sockets++) {
        struct listeners listeners = {.count = 0};
        open_sockets(&listeners, sockets);
        for (int workers = 1; workers <= 12; workers++) {
            for (int i = 0; i < sockets; i++) {
                int times = served(&listeners, i, workers);
                assert_true(times >= 1);
                assert_true(workers <= sockets ? times == 1 : times <= (workers / sockets) + 1);
            }
        }
        listeners_close(&listeners, false);
        assert_int_equal(listeners.count, 0);
    }
}

static void test_adopt_knows_duplicates(void **state)
{
    struct listeners listeners = {.count = 0};
    int more[3];
    (void)state;
    open_sockets(&listeners, 2);
    more[0] = dup(listeners.sockets[0].fd);
    more[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    more[2] = dup(more[1]);
    listeners_adopt(&listeners, more, 3);
    assert_int_equal(listeners.count, 3);
    assert_true(cookie_of(listeners.sockets[2].fd) != cookie_of(listeners.sockets[0].fd));
    listeners_close(&listeners, false);
}

static struct listen_points points_of(const char *addresses)
{
    struct listen_points points = {.count = 0};
    char error[400] = "";
    assert_true(listen_points_add(&points, addresses, 6432, LISTEN_PLAIN, error, sizeof error));
    return points;
}

static void test_points(void **state)
{
    static const struct {
        const char *addresses, *names;
    } cases[] = {
        {"127.0.0.1", "127.0.0.1:6432 "},
        {"127.0.0.1, ::1", "127.0.0.1:6432 [::1]:6432 "},
        {" 127.0.0.1 ,127.0.0.2\t,::1 ", "127.0.0.1:6432 127.0.0.2:6432 [::1]:6432 "},
        {"127.0.0.1,127.0.0.1", "127.0.0.1:6432 "},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct listen_points points = points_of(cases[i].addresses);
        char names[400] = "", name[100];
        for (int j = 0; j < points.count; j++) {
            listen_point_name(&points.points[j], name, sizeof name);
            strcat(strcat(names, name), " ");
            assert_false(points.points[j].optional);
        }
        assert_string_equal(names, cases[i].names);
    }
}

static void test_points_refused(void **state)
{
    static const char *const cases[][2] = {
        {"127.0.0.1,", "listen.address \"127.0.0.1,\" has nothing between its commas"},
        {" , ::1", "listen.address \" , ::1\" has nothing between its commas"},
        {"1.2.3.4.5.6", "cannot resolve \"1.2.3.4.5.6\" of listen.address: "},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct listen_points points = {.count = 0};
        char error[400] = "";
        assert_false(
            listen_points_add(&points, cases[i][0], 6432, LISTEN_PLAIN, error, sizeof error));
        assert_memory_equal(error, cases[i][1], strlen(cases[i][1]));
    }
}

/* Of two wildcards the one of IPv6 leaves IPv4 to the other; alone it takes both. */
static void test_wildcards(void **state)
{
    struct listen_points both = points_of("0.0.0.0, ::"), six = points_of("::");
    (void)state;
    assert_int_equal(both.count, 2);
    assert_false(listen_points_split(&both, &both.points[0]));
    assert_true(listen_points_split(&both, &both.points[1]));
    assert_false(listen_points_split(&six, &six.points[0]));
    assert_int_equal(listen_points_add(&six, "0.0.0.0", 6433, LISTEN_PLAIN, NULL, 0), true);
    assert_false(listen_points_split(&six, &six.points[0]));
}

static int port_of(int fd)
{
    struct sockaddr_in bound;
    socklen_t length = sizeof bound;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&bound, &length), 0);
    return ntohs(bound.sin_port);
}

/* A port that was free just now, at both addresses. */
static struct config configure(const char *addresses, int port)
{
    return (struct config){.listen_address = addresses,
                           .listen_port = port,
                           .listen_backlog = 8,
                           .unix_socket_dir = ""};
}

static int free_port(void)
{
    struct listeners listeners = {.count = 0};
    struct config config = configure("127.0.0.1", 0);
    char error[400];
    assert_true(listeners_open(&listeners, &config, 1, error, sizeof error));
    int port = port_of(listeners.sockets[0].fd);
    listeners_close(&listeners, false);
    return port;
}

static int at_point(const struct listeners *listeners, int point)
{
    int count = 0;
    for (int i = 0; i < listeners->count; i++)
        count += listeners->sockets[i].point == point;
    return count;
}

/* Another process' sockets stay where they are wanted, go where they are not; the rest is opened. */
static void test_open_after_adoption(void **state)
{
    struct listeners old = {.count = 0}, new = {.count = 0};
    struct config before = configure("127.0.0.1, 127.0.0.2", free_port());
    struct config after = configure("127.0.0.2, 127.0.0.3", before.listen_port);
    int fds[LISTENERS_MAX];
    char error[400] = "";
    (void)state;
    assert_true(listeners_open(&old, &before, 2, error, sizeof error));
    assert_int_equal(old.count, 4);
    for (int i = 0; i < old.count; i++)
        fds[i] = dup(old.sockets[i].fd);
    listeners_adopt(&new, fds, old.count);
    assert_true(listeners_open(&new, &after, 3, error, sizeof error));
    assert_int_equal(at_point(&new, 0), 2);
    assert_int_equal(at_point(&new, 1), 3);
    assert_int_equal(cookie_of(new.sockets[0].fd), cookie_of(old.sockets[2].fd));
    struct listen_socket mine[LISTENERS_MAX];
    for (int worker = 0; worker < 3; worker++) {
        int count = listeners_share(&new, worker, 3, mine);
        assert_int_equal(count, 2); /* one at each point */
        assert_int_equal(mine[0].point, 0);
        assert_true(mine[0].shared);
        assert_int_equal(mine[1].point, 1);
        assert_false(mine[1].shared);
        close(mine[0].fd);
        close(mine[1].fd);
    }
    listeners_close(&old, false);
    listeners_close(&new, false);
}

/* More than the sockets there may be: refused, and nothing stays open. */
static void test_open_limit(void **state)
{
    struct listeners listeners = {.count = 0};
    struct config config =
        configure("127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4,127.0.0.5", free_port());
    char error[400] = "";
    (void)state;
    assert_false(listeners_open(&listeners, &config, 128, error, sizeof error));
    assert_non_null(strstr(error, "more than 512 sockets"));
    assert_int_equal(listeners.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share),      cmocka_unit_test(test_adopt_knows_duplicates),
        cmocka_unit_test(test_points),     cmocka_unit_test(test_points_refused),
        cmocka_unit_test(test_wildcards),  cmocka_unit_test(test_open_after_adoption),
        cmocka_unit_test(test_open_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
