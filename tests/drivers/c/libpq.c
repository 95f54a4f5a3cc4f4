// libpq itself: simple and extended protocol, binary format, prepared statements, pipeline mode, COPY, single-row mode.
#include <arpa/inet.h>
#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CLIENTS = 50, ROUNDS = 20, MAX_CONNECTIONS = 4 };

// One running case: what it has open, and where a failed check goes. The case "many" has one for each thread.
struct run {
    PGconn *open[MAX_CONNECTIONS];
    int opened;
    jmp_buf failed;
    char error[2000];
};

static __thread struct run *run;

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(run->error, sizeof run->error, format, arguments);
    va_end(arguments);
    longjmp(run->failed, 1);
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fail("line %d: %s: %s", __LINE__, #condition,                                          \
                 run->opened ? PQerrorMessage(run->open[0]) : "");                                 \
        }                                                                                          \
    } while (0)

static const char *env(const char *name)
{
    const char *value = getenv(name);

    if (value == NULL) {
        fprintf(stderr, "%s is not set\n", name);
        exit(2);
    }
    return value;
}

static PGconn *try_connect(const char *database, const char *password)
{
    const char *names[] = {
        "host", "port", "user", "password", "dbname", "connect_timeout", "application_name", NULL};
    const char *values[] = {env("PGSHUNT_HOST"),
                            env("PGSHUNT_PORT"),
                            env("PGSHUNT_USER"),
                            password,
                            database,
                            "20",
                            "libpq matrix",
                            NULL};

    return PQconnectdbParams(names, values, 0);
}

static PGconn *connect_to(const char *database)
{
    PGconn *connection = try_connect(env(database), env("PGSHUNT_PASSWORD"));

    if (run->opened == MAX_CONNECTIONS || PQstatus(connection) != CONNECTION_OK) {
        snprintf(run->error, sizeof run->error, "connect: %s", PQerrorMessage(connection));
        PQfinish(connection);
        longjmp(run->failed, 1);
    }
    run->open[run->opened++] = connection;
    return connection;
}

// Checks that the result is the one value, and frees it.
static void expect(PGresult *result, const char *value)
{
    char found[1000];

    snprintf(found, sizeof found, "%s%s",
             PQntuples(result) == 1 ? PQgetvalue(result, 0, 0)
                                    : PQresStatus(PQresultStatus(result)),
             PQresultErrorMessage(result));
    PQclear(result);
    if (strcmp(found, value) != 0) {
        fail("found \"%s\" instead of \"%s\"", found, value);
    }
}

static void expect_state(PGresult *result, const char *sqlstate)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    char found[6] = "none";

    if (state != NULL) {
        snprintf(found, sizeof found, "%s", state);
    }
    PQclear(result);
    if (strcmp(found, sqlstate) != 0) {
        fail("SQLSTATE %s instead of %s", found, sqlstate);
    }
}

__attribute__((format(printf, 2, 3))) static PGresult *ask(PGconn *connection, const char *format,
                                                           ...)
{
    char sql[1000];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(sql, sizeof sql, format, arguments);
    va_end(arguments);
    return PQexec(connection, sql);
}

static void done(PGresult *result, const char *tag)
{
    char found[1000];

    snprintf(found, sizeof found, "%s%s", PQcmdStatus(result), PQresultErrorMessage(result));
    PQclear(result);
    if (strcmp(found, tag) != 0) {
        fail("found \"%s\" instead of \"%s\"", found, tag);
    }
}

static PGresult *with_value(PGconn *connection, const char *sql, const char *value)
{
    return PQexecParams(connection, sql, 1, NULL, &value, NULL, NULL, 0);
}

// ---- cases ----

static void case_connect(void)
{
    PGconn *connection = connect_to("PGSHUNT_DATABASE");
    PGconn *refused = try_connect(env("PGSHUNT_DATABASE"), "wrong");
    int good = strstr(PQerrorMessage(refused), "password authentication failed") != NULL;

    PQfinish(refused);
    CHECK(good);
    CHECK(PQserverVersion(connection) >= 130000);
    CHECK(strcmp(PQparameterStatus(connection, "client_encoding"), "UTF8") == 0);
    expect(ask(connection, "SELECT current_setting('application_name')"), "libpq matrix");
    PQreset(connection);
    expect(ask(connection, "SELECT 1"), "1");
    CHECK(PQping("host=127.0.0.1 port=1") == PQPING_NO_RESPONSE);
}

static void case_types(void)
{
    static const char *const values[][2] = {
        {"int", "2147483647"},
        {"bigint", "-9007199254740993"},
        {"numeric", "12345678901234567890.123456789"},
        {"text", "Grüße, 日本語 🐘 'quoted' \"double\" back\\slash"},
        {"bytea", "\\x0001ff5c27"},
        {"bool", "t"},
        {"timestamptz", "2026-02-03 04:05:06.789012+00"},
        {"uuid", "123e4567-e89b-12d3-a456-426614174000"},
        {"jsonb", "{\"a\": [1, 2.5, null, \"ä\"]}"},
        {"int[]", "{1,NULL,3}"},
    };
    PGconn *connection = connect_to("PGSHUNT_DATABASE");
    PGresult *result;

    PQclear(ask(connection, "SET TimeZone = 'UTC'"));
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char sql[100];

        snprintf(sql, sizeof sql, "SELECT $1::%s", values[i][0]);
        expect(with_value(connection, sql, values[i][1]), values[i][1]);
    }
    result = with_value(connection, "SELECT $1::text", NULL);
    CHECK(PQgetisnull(result, 0, 0));
    PQclear(result);

    uint32_t number = htonl(123456);
    const char *parts[] = {(const char *)&number, "\0\1\377"};
    result = PQexecParams(connection, "SELECT $1::int4, $2::bytea", 2, NULL, parts, (int[]){4, 3},
                          (int[]){1, 1}, 1);
    CHECK(PQntuples(result) == 1 && PQfformat(result, 0) == 1 && PQgetlength(result, 0, 1) == 3);
    CHECK(memcmp(PQgetvalue(result, 0, 0), &number, 4) == 0 &&
          memcmp(PQgetvalue(result, 0, 1), "\0\1\377", 3) == 0);
    PQclear(result);
}

static void case_prepared(void)
{
    PGconn *both[] = {connect_to("PGSHUNT_DATABASE"), connect_to("PGSHUNT_DATABASE")};
    PGresult *result;

    // The same name for different statements.
    done(PQprepare(both[0], "mine", "SELECT $1::int * 2", 0, NULL), "");
    done(PQprepare(both[1], "mine", "SELECT 'b' || $1::int", 0, NULL), "");
    for (int turn = 0; turn < 20; turn++) {
        char value[20], doubled[20], text[22];
        const char *values[] = {value};

        snprintf(value, sizeof value, "%d", turn);
        snprintf(doubled, sizeof doubled, "%d", turn * 2);
        snprintf(text, sizeof text, "b%d", turn);
        done(ask(both[0], "BEGIN"), "BEGIN");
        done(ask(both[1], "BEGIN"), "BEGIN");
        expect(PQexecPrepared(both[turn % 2], "mine", 1, values, NULL, NULL, 0),
               turn % 2 ? text : doubled);
        expect(PQexecPrepared(both[1 - turn % 2], "mine", 1, values, NULL, NULL, 0),
               turn % 2 ? doubled : text);
        done(ask(both[0], "COMMIT"), "COMMIT");
        done(ask(both[1], "COMMIT"), "COMMIT");
    }
    result = PQdescribePrepared(both[1], "mine");
    CHECK(PQnparams(result) == 1 && PQparamtype(result, 0) == 23 && PQftype(result, 0) == 25);
    PQclear(result);
    expect_state(PQprepare(both[0], "mine", "SELECT 1", 0, NULL), "42P05");
    done(ask(both[0], "DEALLOCATE mine"), "DEALLOCATE");
    expect_state(PQexecPrepared(both[0], "mine", 1, (const char *[]){"1"}, NULL, NULL, 0), "26000");
}

static void case_transactions(void)
{
    const char *table = env("PGSHUNT_TABLE");
    PGconn *connection = connect_to("PGSHUNT_DATABASE");

    done(ask(connection, "BEGIN"), "BEGIN");
    CHECK(PQtransactionStatus(connection) == PQTRANS_INTRANS);
    done(ask(connection, "INSERT INTO %s VALUES (1, 1, 'kept')", table), "INSERT 0 1");
    done(ask(connection, "SAVEPOINT s"), "SAVEPOINT");
    expect_state(ask(connection, "INSERT INTO %s VALUES (1, 1, 'twice')", table), "23505");
    CHECK(PQtransactionStatus(connection) == PQTRANS_INERROR);
    expect_state(ask(connection, "SELECT 1"), "25P02");
    done(ask(connection, "ROLLBACK TO s"), "ROLLBACK");
    done(ask(connection, "COMMIT"), "COMMIT");
    CHECK(PQtransactionStatus(connection) == PQTRANS_IDLE);
    done(ask(connection, "BEGIN; UPDATE %s SET body = 'gone'; ROLLBACK", table), "ROLLBACK");
    expect(ask(connection, "SELECT body FROM %s", table), "kept");
    done(ask(connection, "BEGIN"), "BEGIN");
    expect_state(ask(connection, "SELECT 1 / 0"), "22012");
    done(ask(connection, "COMMIT"), "ROLLBACK");
    // Several statements in one message are one transaction.
    expect_state(ask(connection, "DELETE FROM %s; SELECT 1 / 0", table), "22012");
    done(ask(connection, "DELETE FROM %s", table), "DELETE 1");
}

static void case_errors(void)
{
    PGconn *connection = connect_to("PGSHUNT_DATABASE");
    PGresult *result = with_value(connection, "SELECT $1 FROM missing_table", "1");

    CHECK(strcmp(PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION), "16") == 0);
    expect_state(result, "42P01");
    expect_state(with_value(connection, "SELECT 1 / $1::int", "0"), "22012");
    expect_state(with_value(connection, "SELECT $1::int", "x"), "22P02");
    expect_state(ask(connection, "SELEC 1"), "42601");
    expect_state(ask(connection, "INSERT INTO %s VALUES (1, 1, 'refused')", env("PGSHUNT_TABLE")),
                 "23514");
    result = ask(connection, " ");
    CHECK(PQresultStatus(result) == PGRES_EMPTY_QUERY);
    PQclear(result);
    expect(ask(connection, "SELECT 1"), "1");
}

static void case_batch(void)
{
    PGconn *connection = connect_to("PGSHUNT_DATABASE");
    PGresult *result;

    CHECK(PQenterPipelineMode(connection));
    for (int number = 0; number < 100; number++) {
        char text[20];
        const char *value = text;

        snprintf(text, sizeof text, "%d", number);
        CHECK(PQsendQueryParams(connection, "SELECT $1::int", 1, NULL, &value, NULL, NULL, 0));
    }
    CHECK(PQpipelineSync(connection));
    // An error: what follows is skipped up to the sync, what comes after that runs.
    CHECK(PQsendPrepare(connection, "later", "SELECT 40 + $1::int", 0, NULL));
    CHECK(PQsendQueryParams(connection, "SELECT 1 / 0", 0, NULL, NULL, NULL, NULL, 0));
    CHECK(PQsendQueryParams(connection, "SELECT 'never'", 0, NULL, NULL, NULL, NULL, 0));
    CHECK(PQpipelineSync(connection));
    CHECK(PQsendQueryPrepared(connection, "later", 1, (const char *[]){"2"}, NULL, NULL, 0));
    CHECK(PQpipelineSync(connection));
    for (int number = 0; number < 100; number++) {
        char text[20];

        snprintf(text, sizeof text, "%d", number);
        expect(PQgetResult(connection), text);
        CHECK(PQgetResult(connection) == NULL);
    }
    static const ExecStatusType wanted[] = {
        PGRES_PIPELINE_SYNC, PGRES_COMMAND_OK, PGRES_FATAL_ERROR,  PGRES_PIPELINE_ABORTED,
        PGRES_PIPELINE_SYNC, PGRES_TUPLES_OK,  PGRES_PIPELINE_SYNC};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        result = PQgetResult(connection);
        CHECK(PQresultStatus(result) == wanted[i]);
        CHECK(wanted[i] != PGRES_TUPLES_OK || strcmp(PQgetvalue(result, 0, 0), "42") == 0);
        PQclear(result);
        CHECK(wanted[i] == PGRES_PIPELINE_SYNC || PQgetResult(connection) == NULL);
    }
    CHECK(PQexitPipelineMode(connection));
    expect(ask(connection, "SELECT 1"), "1");
}

static void case_copy(void)
{
    const char *table = env("PGSHUNT_TABLE");
    PGconn *connection = connect_to("PGSHUNT_DATABASE");
    PGresult *result = ask(connection, "COPY %s FROM STDIN", table);
    char *line;
    int lines = 0;

    CHECK(PQresultStatus(result) == PGRES_COPY_IN);
    PQclear(result);
    for (int number = 0; number < 20000; number++) {
        char row[50];
        int length = snprintf(row, sizeof row, "%d\t1\tline %d\n", number, number);

        CHECK(PQputCopyData(connection, row, length) == 1);
    }
    CHECK(PQputCopyEnd(connection, NULL) == 1);
    done(PQgetResult(connection), "COPY 20000");
    CHECK(PQgetResult(connection) == NULL);

    result = ask(connection, "COPY (SELECT id FROM %s ORDER BY id) TO STDOUT", table);
    CHECK(PQresultStatus(result) == PGRES_COPY_OUT);
    PQclear(result);
    while (PQgetCopyData(connection, &line, 0) > 0) {
        int number = atoi(line);

        PQfreemem(line);
        CHECK(number == lines);
        lines++;
    }
    CHECK(lines == 20000);
    done(PQgetResult(connection), "COPY 20000");
    CHECK(PQgetResult(connection) == NULL);

    PQclear(ask(connection, "COPY %s FROM STDIN", table));
    CHECK(PQputCopyEnd(connection, "given up") == 1);
    expect_state(PQgetResult(connection), "57014");
    CHECK(PQgetResult(connection) == NULL);
    done(ask(connection, "DELETE FROM %s", table), "DELETE 20000");
}

static void case_cursor(void)
{
    PGconn *connection = connect_to("PGSHUNT_DATABASE");
    PGresult *result;
    int rows = 0;

    CHECK(PQsendQuery(connection, "SELECT n FROM generate_series(0, 4999) AS n") &&
          PQsetSingleRowMode(connection));
    while ((result = PQgetResult(connection)) != NULL) {
        if (PQresultStatus(result) == PGRES_SINGLE_TUPLE) {
            CHECK(atoi(PQgetvalue(result, 0, 0)) == rows);
            rows++;
        } else {
            CHECK(PQresultStatus(result) == PGRES_TUPLES_OK);
        }
        PQclear(result);
    }
    CHECK(rows == 5000);
    done(ask(connection, "BEGIN"), "BEGIN");
    done(ask(connection,
             "DECLARE reader SCROLL CURSOR FOR SELECT n FROM generate_series(1, 10) AS n"),
         "DECLARE CURSOR");
    done(ask(connection, "MOVE 6 IN reader"), "MOVE 6");
    expect(ask(connection, "FETCH reader"), "7");
    expect(ask(connection, "FETCH PRIOR FROM reader"), "6");
    done(ask(connection, "COMMIT"), "COMMIT");
}

static void *cancel_soon(void *cancel)
{
    char error[256];

    usleep(300000);
    return (void *)(intptr_t)PQcancel(cancel, error, sizeof error);
}

static void case_cancel(void)
{
    PGconn *connection = connect_to("PGSHUNT_DATABASE");
    PGcancel *cancel = PQgetCancel(connection);
    pthread_t thread;
    void *sent;
    PGresult *result;

    pthread_create(&thread, NULL, cancel_soon, cancel);
    result = ask(connection, "SELECT pg_sleep(30)");
    pthread_join(thread, &sent);
    PQfreeCancel(cancel);
    expect_state(result, "57014");
    CHECK(sent != NULL);
    expect(ask(connection, "SELECT 1"), "1");
}

static void case_listen(void)
{
    const char *table = env("PGSHUNT_TABLE");
    PGconn *listener = connect_to("PGSHUNT_DATABASE");
    PGconn *other = connect_to("PGSHUNT_DATABASE");
    PGnotify *heard;

    done(ask(listener, "LISTEN %s", table), "LISTEN");
    done(ask(other, "NOTIFY %s, 'hello'", table), "NOTIFY");
    while ((heard = PQnotifies(listener)) == NULL) {
        struct pollfd wait = {.fd = PQsocket(listener), .events = POLLIN};

        CHECK(poll(&wait, 1, 20000) == 1 && PQconsumeInput(listener));
    }
    int good = strcmp(heard->relname, table) == 0 && strcmp(heard->extra, "hello") == 0;
    PQfreemem(heard);
    CHECK(good);
}

static void work(int who)
{
    const char *table = env("PGSHUNT_TABLE");
    PGconn *connection = connect_to("PGSHUNT_DATABASE");
    char sql[200];

    snprintf(sql, sizeof sql, "INSERT INTO %s VALUES ($1, $2, $3) RETURNING body", table);
    done(PQprepare(connection, "put", sql, 0, NULL), "");
    for (int turn = 0; turn < ROUNDS; turn++) {
        char key[20], client[20], body[50];

        snprintf(key, sizeof key, "%d", who * 1000 + turn);
        snprintf(client, sizeof client, "%d", who);
        snprintf(body, sizeof body, "client %d turn %d", who, turn);
        done(ask(connection, "BEGIN"), "BEGIN");
        expect(PQexecPrepared(connection, "put", 3, (const char *[]){key, client, body}, NULL, NULL,
                              0),
               body);
        expect(ask(connection, "SELECT body FROM %s WHERE id = %s", table, key), body);
        done(ask(connection, "COMMIT"), "COMMIT");
    }
}

// Runs a case (or a client of "many") with a `struct run` of its own; its text says what failed.
static void guarded(struct run *own, void (*function)(void), int who)
{
    run = own;
    if (setjmp(own->failed) == 0) {
        if (function != NULL) {
            function();
        } else {
            work(who);
        }
    }
    for (int i = 0; i < own->opened; i++) {
        PQfinish(own->open[i]);
    }
}

struct worker {
    pthread_t thread;
    struct run run;
    int who;
};

static void *worker_main(void *data)
{
    struct worker *worker = data;

    guarded(&worker->run, NULL, worker->who);
    return NULL;
}

static void case_many(void)
{
    static struct worker workers[CLIENTS];
    const char *error = NULL;

    for (int who = 0; who < CLIENTS; who++) {
        workers[who].who = who;
        pthread_create(&workers[who].thread, NULL, worker_main, &workers[who]);
    }
    for (int who = 0; who < CLIENTS; who++) {
        pthread_join(workers[who].thread, NULL);
        error = workers[who].run.error[0] != '\0' ? workers[who].run.error : error;
    }
    if (error != NULL) {
        fail("%s", error);
    }
    expect(ask(connect_to("PGSHUNT_DATABASE"),
               "WITH gone AS (DELETE FROM %s RETURNING id) SELECT count(*) FROM gone",
               env("PGSHUNT_TABLE")),
           "1000");
}

static void case_sharded(void)
{
    PGconn *connection = connect_to("PGSHUNT_SHARDED");

    done(PQprepare(connection, "", "SELECT name FROM users WHERE id = $1", 0, NULL), "");
    done(PQprepare(connection, "by id", "SELECT name FROM users WHERE id = $1", 0, NULL), "");
    for (int number = 1; number <= 20; number++) {
        char key[20], name[30];
        const char *values[] = {key};

        snprintf(key, sizeof key, "%d", number);
        snprintf(name, sizeof name, "user %04d", number);
        expect(PQexecPrepared(connection, "by id", 1, values, NULL, NULL, 0), name);
        uint64_t binary = htobe64((uint64_t)number);
        values[0] = (const char *)&binary;
        expect(PQexecPrepared(connection, "by id", 1, values, (int[]){8}, (int[]){1}, 0), name);
    }
    expect(with_value(connection, "SELECT id FROM users ORDER BY id DESC LIMIT $1", "1"), "200");
    done(ask(connection, "INSERT INTO users (id, name) VALUES (501, 'a'), (502, 'b')"),
         "INSERT 0 2");
    done(ask(connection, "DELETE FROM users WHERE id > 500"), "DELETE 2");
}

static const struct {
    const char *name;
    void (*function)(void);
} cases[] = {
    {"connect", case_connect},   {"types", case_types},
    {"prepared", case_prepared}, {"transactions", case_transactions},
    {"errors", case_errors},     {"batch", case_batch},
    {"copy", case_copy},         {"cursor", case_cursor},
    {"cancel", case_cancel},     {"many", case_many},
    {"listen", case_listen},     {"sharded", case_sharded},
};

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run own = {.opened = 0};

        guarded(&own, cases[i].function, 0);
        if (own.error[0] == '\0') {
            printf("ok %s\n", cases[i].name);
        } else {
            printf("failed %s: %s\n", cases[i].name, own.error);
        }
    }
    return 0;
}
