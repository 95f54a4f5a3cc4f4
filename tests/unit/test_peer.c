/* test_peer.c: addresses of clients come out as they went in. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "pgshunt/unixpath.h"
#include "proxy/peer.h"

static void check(const void *address, socklen_t length, bool local)
{
    struct sockaddr_storage in = {0}, out;
    memcpy(&in, address, length);
    struct peer peer = peer_of(&in, 7);
    assert_int_equal(peer.tag, 7);
    assert_int_equal(peer_is_local(&peer), local);
    assert_int_equal(peer_address(&peer, &out), length);
    assert_memory_equal(&in, &out, sizeof in);
}

static void test_round_trip(void **state)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(65535)};
    struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(1), .sin6_scope_id = 0xfffffffe};
    sa_family_t local = AF_UNIX, nobody = AF_UNSPEC;
    (void)state;
    assert_int_equal(inet_pton(AF_INET, "203.0.113.254", &v4.sin_addr), 1);
    assert_int_equal(inet_pton(AF_INET6, "fe80::1:2:3:ff", &v6.sin6_addr), 1);
    check(&v4, sizeof v4, false);
    check(&v6, sizeof v6, false);
    check(&local, sizeof local, true); /* what accept() says of a client without a name */
    check(&nobody, sizeof nobody, false);
}

static void test_unix_path(void **state)
{
    char path[UNIX_PATH_SIZE], directory[UNIX_PATH_SIZE] = "/";
    (void)state;
    assert_true(unix_path(path, "/run/postgresql", 5432));
    assert_string_equal(path, "/run/postgresql/.s.PGSQL.5432");
    memset(directory + 1, 'x', UNIX_PATH_SIZE - 2);
    directory[107 - strlen("/.s.PGSQL.5432")] = '\0';
    assert_true(unix_path(path, directory, 5432));
    assert_int_equal(strlen(path), 107);
    assert_false(unix_path(path, directory, 15432));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_unix_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
