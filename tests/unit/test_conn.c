/* test_conn.c: a connection hears of everything that arrives, though the kernel tells of new bytes only once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/conn.h"

#define ROOM 10

struct fixture {
    uv_loop_t loop;
    struct poller poller;
    struct peer {
        struct conn conn;
        int other; /* the end that the test holds */
        char got[200];
        size_t length;
        bool ended;
        bool stop_reading;   /* after each read */
        struct peer *closes; /* with the first event */
    } a, b;
};

static void on_closed(struct conn *conn)
{
    memset(conn, 0xee, sizeof *conn); /* whoever touches it from now on is found out */
}

static void on_event(struct conn *conn, enum conn_event event)
{
    struct peer *peer = (struct peer *)conn;
    assert_int_equal(event, CONN_READABLE);
    if (peer->closes && conn_is_open(&peer->closes->conn))
        conn_close(&peer->closes->conn, on_closed);
    ssize_t n = conn_recv(conn, peer->got + peer->length, ROOM);
    if (n > 0)
        peer->length += (size_t)n;
    peer->ended |= n < 0;
    if (n < 0)
        conn_close(conn, on_closed);
    else if (peer->stop_reading)
        conn_set_reading(conn, false);
}

static void open_peer(struct fixture *f, struct peer *peer)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    assert_true(conn_open(&peer->conn, &f->poller, ends[0], on_event));
    peer->other = ends[1];
}

static int set_up(void **state)
{
    static struct fixture fixture;
    memset(&fixture, 0, sizeof fixture);
    assert_int_equal(uv_loop_init(&fixture.loop), 0);
    assert_true(poller_open(&fixture.poller, &fixture.loop));
    open_peer(&fixture, &fixture.a);
    open_peer(&fixture, &fixture.b);
    *state = &fixture;
    return 0;
}

static void nothing(uv_timer_t *timer)
{
    (void)timer;
}

/* Turns that wait for nothing: a timer is due at once. */
static void turns(struct fixture *f, int count)
{
    uv_timer_t timer;
    uv_timer_init(&f->loop, &timer);
    for (int i = 0; i < count; i++) {
        uv_timer_start(&timer, nothing, 0, 0);
        poller_turn(&f->poller);
    }
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&f->loop, UV_RUN_NOWAIT);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    struct peer *peers[] = {&f->a, &f->b};
    for (int i = 0; i < 2; i++) {
        if (peers[i]->other >= 0)
            close(peers[i]->other);
        if (peers[i]->conn.watch.poller == &f->poller)
            conn_close(&peers[i]->conn, on_closed);
    }
    turns(f, 1);
    poller_close(&f->poller);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    return 0;
}

static void say(struct peer *peer, const char *text)
{
    assert_int_equal(write(peer->other, text, strlen(text)), strlen(text));
}

static void assert_got(const struct peer *peer, const char *text)
{
    assert_int_equal(peer->length, strlen(text));
    assert_memory_equal(peer->got, text, peer->length);
}

static void test_more_than_one_read_takes(void **state)
{
    struct fixture *f = *state;
    say(&f->a, "0123456789abcdefghijklmnopqrs");
    turns(f, 4);
    assert_got(&f->a, "0123456789abcdefghijklmnopqrs");
    assert_null(f->poller.again);
}

static void test_exactly_what_one_read_takes(void **state)
{
    struct fixture *f = *state;
    say(&f->a, "0123456789");
    turns(f, 3);
    assert_got(&f->a, "0123456789");
    assert_null(f->poller.again); /* the second read found nothing, and that was the end of it */
    say(&f->a, "x");
    turns(f, 1);
    assert_got(&f->a, "0123456789x");
}

static void test_an_end_behind_the_last_bytes(void **state)
{
    struct fixture *f = *state;
    say(&f->a, "bye");
    close(f->a.other);
    f->a.other = -1;
    turns(f, 2);
    assert_got(&f->a, "bye");
    assert_true(f->a.ended);
}

static void test_an_end_after_the_last_bytes(void **state)
{
    struct fixture *f = *state;
    say(&f->a, "bye");
    turns(f, 2);
    assert_false(f->a.ended);
    assert_int_equal(shutdown(f->a.other, SHUT_WR), 0);
    turns(f, 1);
    assert_true(f->a.ended);
}

static void test_what_came_while_nobody_read(void **state)
{
    struct fixture *f = *state;
    f->a.stop_reading = true;
    say(&f->a, "0123456789abcde");
    turns(f, 3);
    assert_got(&f->a, "0123456789");
    close(f->a.other);
    f->a.other = -1;
    turns(f, 1);
    f->a.stop_reading = false;
    conn_set_reading(&f->a.conn, true);
    turns(f, 3);
    assert_got(&f->a, "0123456789abcde");
    assert_true(f->a.ended);
}

static void test_closed_by_another_while_it_has_more(void **state)
{
    struct fixture *f = *state;
    say(&f->a, "0123456789abcdefghijklmnopqrs");
    turns(f, 1); /* a is to be called again */
    assert_non_null(f->poller.again);
    f->b.closes = &f->a;
    say(&f->b, "x");
    conn_close(&f->a.conn, on_closed);
    assert_null(f->poller.again);
    turns(f, 3);
    assert_got(&f->a, "0123456789");
    assert_got(&f->b, "x");
}

static void test_two_that_have_more_and_one_closes_the_other(void **state)
{
    struct fixture *f = *state;
    say(&f->a, "0123456789abcdefghijklmnopqrs");
    say(&f->b, "0123456789abcdefghijklmnopqrs");
    turns(f, 1);
    f->a.closes = &f->b;
    f->b.closes = &f->a;
    turns(f, 4);
    /* Whoever came first closed the other, which heard nothing more. */
    assert_int_equal(f->a.length + f->b.length, 29 + 10);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_more_than_one_read_takes),
        T(test_exactly_what_one_read_takes),
        T(test_an_end_behind_the_last_bytes),
        T(test_an_end_after_the_last_bytes),
        T(test_what_came_while_nobody_read),
        T(test_closed_by_another_while_it_has_more),
        T(test_two_that_have_more_and_one_closes_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
