/* test_outbox.c: what the events of one turn send arrives whole and in order, though it leaves at the turn's end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/conn.h"

#define PEERS 40 /* more than an outbox has room for */
#define LONG 5000

struct fixture;

struct peer {
    struct conn conn;
    struct fixture *fixture;
    int other; /* the end that the test holds */
    int drained;
};

struct fixture {
    uv_loop_t loop;
    struct poller poller;
    struct peer peers[PEERS];
    int open;
    int events;                      /* in this turn */
    void (*act)(struct peer *, int); /* at the event of this number */
    char text[LONG];
};

static void on_event(struct conn *conn, enum conn_event event)
{
    struct peer *peer = (struct peer *)conn;
    char byte[8];
    if (event == CONN_DRAINED) {
        peer->drained++;
        return;
    }
    assert_int_equal(event, CONN_READABLE);
    if (conn_recv(conn, byte, sizeof byte) > 0)
        peer->fixture->act(peer, peer->fixture->events++);
}

static void open_peers(struct fixture *f, int count)
{
    for (; f->open < count; f->open++) {
        struct peer *peer = &f->peers[f->open];
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
        peer->fixture = f;
        peer->other = ends[1];
        assert_true(conn_open(&peer->conn, &f->poller, ends[0], on_event));
    }
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    *state = f;
    for (int i = 0; i < LONG; i++)
        f->text[i] = (char)('a' + i % 26);
    return uv_loop_init(&f->loop) || !poller_open(&f->poller, &f->loop);
}

static void on_closed(struct conn *conn)
{
    (void)conn;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < f->open; i++) {
        conn_close(&f->peers[i].conn, on_closed);
        close(f->peers[i].other);
    }
    while (f->poller.gone)
        poller_turn(&f->poller);
    poller_close(&f->poller);
    uv_loop_close(&f->loop);
    free(f);
    return 0;
}

/* One turn in which the first `count` have something to read. */
static void turn(struct fixture *f, int count, void (*act)(struct peer *, int))
{
    open_peers(f, count);
    for (int i = 0; i < count; i++)
        assert_int_equal(write(f->peers[i].other, "?", 1), 1);
    f->events = 0;
    f->act = act;
    poller_turn(&f->poller);
    assert_int_equal(f->events, count);
}

/* What has come at the test's end; without waiting. */
static size_t arrived(const struct peer *peer, char *bytes, size_t size)
{
    size_t length = 0;
    ssize_t n;
    while (length < size && (n = read(peer->other, bytes + length, size - length)) > 0)
        length += (size_t)n;
    return length;
}

static void assert_arrived(const struct peer *peer, const char *text)
{
    char bytes[200];
    size_t length = arrived(peer, bytes, sizeof bytes);
    assert_int_equal(length, strlen(text));
    assert_memory_equal(bytes, text, length);
}

static void answer(struct peer *peer, int number)
{
    (void)number;
    assert_true(conn_send(&peer->conn, "answer", 6));
}

static void answer_and_look(struct peer *peer, int number)
{
    struct fixture *f = peer->fixture;
    answer(peer, number);
    assert_arrived(peer, f->open > 1 ? "" : "answer");
}

static void test_leaves_at_the_end_of_a_turn_of_several(void **state)
{
    struct fixture *f = *state;
    turn(f, 3, answer_and_look);
    for (int i = 0; i < 3; i++)
        assert_arrived(&f->peers[i], "answer");
}

static void test_leaves_at_once_where_one_is_served(void **state)
{
    turn(*state, 1, answer_and_look);
}

static void test_more_than_there_is_room_for(void **state)
{
    struct fixture *f = *state;
    turn(f, PEERS, answer);
    for (int i = 0; i < PEERS; i++)
        assert_arrived(&f->peers[i], "answer");
}

/* Short, long, gathered, and collected under a cork. */
static void say_much(struct peer *peer, int number)
{
    struct conn *conn = &peer->conn;
    struct iovec parts[] = {{.iov_base = "three ", .iov_len = 6},
                            {.iov_base = "four ", .iov_len = 5}};
    (void)number;
    assert_true(conn_send(conn, "one ", 4));
    assert_true(conn_send(conn, "two ", 4));
    assert_true(conn_sendv(conn, parts, 2));
    assert_true(conn_send(conn, "five ", 5));
    conn_cork(conn);
    assert_true(conn_send(conn, "six ", 4));
    assert_true(conn_uncork(conn));
    assert_true(conn_send(conn, "seven", 5));
}

static void test_keeps_order_within_a_connection(void **state)
{
    struct fixture *f = *state;
    turn(f, 3, say_much);
    for (int i = 0; i < 3; i++)
        assert_arrived(&f->peers[i], "one two three four five six seven");
}

static void take_back(struct peer *peer, int number)
{
    struct conn *conn = &peer->conn;
    answer(peer, number);
    struct conn_mark mark = conn_mark(conn);
    conn_cork(conn);
    assert_true(conn_send(conn, "not this", 8));
    assert_true(conn_holds(conn, &mark));
    conn_take_back(conn, &mark);
    assert_true(conn_uncork(conn));
}

static void test_a_mark_is_behind_what_was_sent(void **state)
{
    struct fixture *f = *state;
    turn(f, 2, take_back);
    assert_arrived(&f->peers[0], "answer");
    assert_arrived(&f->peers[1], "answer");
}

static void answer_and_close(struct peer *peer, int number)
{
    answer(peer, number);
    conn_close(&peer->conn, on_closed);
}

static void test_arrives_though_closed_behind_it(void **state)
{
    struct fixture *f = *state;
    turn(f, 2, answer_and_close);
    for (int i = 0; i < 2; i++) {
        char byte;
        assert_arrived(&f->peers[i], "answer");
        assert_int_equal(read(f->peers[i].other, &byte, 1), 0);
    }
}

/* Fills what the kernel takes, to the last byte. */
static size_t fill(int fd)
{
    static const char stuff[4096];
    size_t total = 0;
    for (size_t size = sizeof stuff; size; size /= 2)
        for (ssize_t n; (n = send(fd, stuff, size, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0;)
            total += (size_t)n;
    return total;
}

static void test_waits_for_who_reads_slowly(void **state)
{
    struct fixture *f = *state;
    char *bytes = malloc(1 << 20);
    open_peers(f, 2);
    size_t filled = fill(f->peers[0].conn.fd);
    turn(f, 2, answer);
    assert_int_equal(conn_queued(&f->peers[0].conn), 6);
    assert_true(conn_send(&f->peers[0].conn, " and more", 9));
    assert_arrived(&f->peers[1], "answer");
    size_t length = arrived(&f->peers[0], bytes, 1 << 20);
    assert_int_equal(length, filled);
    poller_turn(&f->poller);
    assert_int_equal(f->peers[0].drained, 1);
    assert_arrived(&f->peers[0], "answer and more");
    free(bytes);
}

static void say_something_long(struct peer *peer, int number)
{
    answer(peer, number);
    assert_true(conn_send(&peer->conn, peer->fixture->text, LONG));
}

static void test_long_ones_follow_what_is_posted(void **state)
{
    struct fixture *f = *state;
    char bytes[LONG + 100];
    turn(f, 2, say_something_long);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(arrived(&f->peers[i], bytes, sizeof bytes), 6 + LONG);
        assert_memory_equal(bytes, "answer", 6);
        assert_memory_equal(bytes + 6, f->text, LONG);
    }
}

static void test_a_peer_that_has_gone(void **state)
{
    struct fixture *f = *state;
    open_peers(f, 2);
    assert_int_equal(write(f->peers[0].other, "?", 1), 1);
    shutdown(f->peers[0].other, SHUT_RD); /* takes nothing any more */
    assert_int_equal(write(f->peers[1].other, "?", 1), 1);
    f->act = answer;
    poller_turn(&f->poller);
    assert_true(f->peers[0].conn.broken);
    assert_false(conn_send(&f->peers[0].conn, "more", 4));
    assert_arrived(&f->peers[1], "answer");
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_leaves_at_the_end_of_a_turn_of_several),
        T(test_leaves_at_once_where_one_is_served),
        T(test_more_than_there_is_room_for),
        T(test_keeps_order_within_a_connection),
        T(test_a_mark_is_behind_what_was_sent),
        T(test_arrives_though_closed_behind_it),
        T(test_waits_for_who_reads_slowly),
        T(test_long_ones_follow_what_is_posted),
        T(test_a_peer_that_has_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
