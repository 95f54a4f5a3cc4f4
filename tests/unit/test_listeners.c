/* test_listeners.c: listening sockets are dealt out so that each is served and each worker has one. */
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
    int fds[LISTENERS_MAX], found = 0;
    for (int worker = 0; worker < workers; worker++) {
        int count = listeners_share(listeners, worker, workers, fds);
        assert_true(count > 0);
        while (count) {
            found += cookie_of(fds[count - 1]) == cookie_of(listeners->fds[which]);
            close(fds[--count]);
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
        listeners_close(&listeners);
        assert_int_equal(listeners.count, 0);
    }
}

static void test_adopt_knows_duplicates(void **state)
{
    struct listeners listeners = {.count = 0};
    int more[3];
    (void)state;
    open_sockets(&listeners, 2);
    more[0] = dup(listeners.fds[0]);
    more[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    more[2] = dup(more[1]);
    listeners_adopt(&listeners, more, 3);
    assert_int_equal(listeners.count, 3);
    assert_true(cookie_of(listeners.fds[2]) != cookie_of(listeners.fds[0]));
    listeners_close(&listeners);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_adopt_knows_duplicates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
