/* test_scram.c: SCRAM-SHA-256 against the RFC, against secrets made by a real Postgres, and against
 * peers that lie.
 *
 * The module is compiled into the test: the RFC's exchange has nonces of its own, and they are set from
 * here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/scram.c"

static struct scram_secret secret_of(const char *text)
{
    struct scram_secret secret;
    assert_true(scram_secret_parse(text, &secret));
    return secret;
}

static void assert_text(struct buffer *buf, const char *expected)
{
    assert_int_equal(buffer_length(buf), strlen(expected));
    assert_memory_equal(buffer_head(buf), expected, strlen(expected));
    buffer_release(buf);
}

/* ---- RFC 7677, section 3 ---- */

#define RFC_CLIENT_NONCE "rOprNGfwEbeRWgbNEkqO"
#define RFC_NONCE RFC_CLIENT_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define RFC_BARE "n=user,r=" RFC_CLIENT_NONCE
#define RFC_SERVER_FIRST "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define RFC_PROOF "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define RFC_VERIFIER "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

/* What a server keeps for the RFC's user. */
static struct scram_secret rfc_secret(void)
{
    struct scram_secret secret = {.iterations = 4096};
    struct derived keys;
    secret.salt_length =
        decode_base64((struct text){"W22ZaJ0SNY7soEsUEjb6gQ==", 24}, secret.salt, SALT_MAX);
    assert_int_equal(secret.salt_length, 16);
    assert_true(derive_keys("pencil", secret.salt, 16, 4096, &keys));
    assert_true(hash(keys.client_key, secret.stored_key));
    memcpy(secret.server_key, keys.server_key, SCRAM_KEY_LENGTH);
    return secret;
}

static void test_rfc_server(void **state)
{
    (void)state;
    struct scram_secret secret = rfc_secret();
    struct scram_server *server = scram_server_new(&secret, false);
    struct buffer reply = {0};
    const char *first = "n,," RFC_BARE, *last = "c=biws,r=" RFC_NONCE ",p=" RFC_PROOF;
    assert_int_equal(scram_server_step(server, first, strlen(first), &reply), SCRAM_CONTINUE);
    buffer_clear(&reply);
    buffer_clear(&server->nonce);
    append_string(&server->nonce, RFC_NONCE);
    buffer_clear(&server->authenticated);
    append_string(&server->authenticated, RFC_BARE "," RFC_SERVER_FIRST);
    assert_int_equal(scram_server_step(server, last, strlen(last), &reply), SCRAM_OK);
    assert_text(&reply, "v=" RFC_VERIFIER);
    scram_server_free(server);
}

static void test_rfc_client(void **state)
{
    (void)state;
    struct scram_client *client = scram_client_new("pencil", NULL);
    struct derived keys;
    struct scram_secret secret = rfc_secret();
    struct buffer authenticated = {0}, out = {0};
    unsigned char proof[SCRAM_KEY_LENGTH];
    append_string(&authenticated, RFC_BARE "," RFC_SERVER_FIRST ",c=biws,r=" RFC_NONCE);
    assert_true(derive_keys("pencil", secret.salt, 16, 4096, &keys));
    assert_true(sign(client, &keys, &authenticated, proof));
    append_base64(&out, proof, sizeof(proof));
    assert_text(&out, RFC_PROOF);
    append_base64(&out, client->expected, SCRAM_KEY_LENGTH);
    assert_text(&out, RFC_VERIFIER);
    buffer_release(&authenticated);
    scram_client_free(client);
}

/* ---- whole exchanges ---- */

struct exchange {
    struct scram_server *server;
    struct scram_client *client;
    struct buffer first, challenge, final, verifier;
};

static struct exchange exchange_new(const struct scram_secret *secret, bool doomed,
                                    const char *password, const struct scram_keys *keys)
{
    return (struct exchange){.server = scram_server_new(secret, doomed),
                             .client = scram_client_new(password, keys)};
}

static void exchange_free(struct exchange *ex)
{
    scram_server_free(ex->server);
    scram_client_free(ex->client);
    buffer_release(&ex->first);
    buffer_release(&ex->challenge);
    buffer_release(&ex->final);
    buffer_release(&ex->verifier);
}

/* Up to and with the client's final message. */
static bool exchange_start(struct exchange *ex)
{
    scram_client_first(ex->client, &ex->first);
    assert_int_equal(scram_server_step(ex->server, buffer_head(&ex->first),
                                       buffer_length(&ex->first), &ex->challenge),
                     SCRAM_CONTINUE);
    return scram_client_final(ex->client, buffer_head(&ex->challenge),
                              buffer_length(&ex->challenge), &ex->final);
}

static enum scram_result exchange_finish(struct exchange *ex)
{
    return scram_server_step(ex->server, buffer_head(&ex->final), buffer_length(&ex->final),
                             &ex->verifier);
}

static bool log_in(const struct scram_secret *secret, const char *password,
                   const struct scram_keys *keys, struct scram_keys *recovered)
{
    struct exchange ex = exchange_new(secret, false, password, keys);
    bool ok =
        exchange_start(&ex) && exchange_finish(&ex) == SCRAM_OK &&
        scram_client_verify(ex.client, buffer_head(&ex.verifier), buffer_length(&ex.verifier));
    if (recovered)
        scram_server_keys(ex.server, recovered);
    exchange_free(&ex);
    return ok;
}

#define K64 "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"

/* Made by PostgreSQL 15: CREATE ROLE ... PASSWORD; passwords in UTF-8. */
static const struct {
    const char *name, *password, *secret;
} POSTGRES_SECRETS[] = {
    {"ASCII", "secret",
     "SCRAM-SHA-256$4096:Xe8D21wxnYqk5JGZFyavGQ=="
     "$Z+mb9I+cxgaMASWKuMfvwXG8oe5u+T/1pCaKT1U9IBg=:qDSWaU+NV3cRYrYTNbG2DOIwyBuzEtRNAOc3hth5Vi4="},
    {"soft hyphen mapped away", "I\302\255X",
     "SCRAM-SHA-256$4096:l6O5Guk/uAnh9boiJb4sIQ=="
     "$CbbSTyXqXCNSwTFTfLOgG6S/gUBo8EvFXlOCtcVrcLE=:fYYGd0LNomSMrSWdE+2zsr1egQuKibtLLA1e/AgUvgM="},
    {"feminine ordinal to a", "\302\252",
     "SCRAM-SHA-256$4096:tU7KZeWms9iQJitU0p8oxg=="
     "$JdJcgvXwiwTxvdmk6oGowcLIE++Q8W9sP/caTMUIwaU=:TjTN02ovsL4OH6QhVkOlf5qn7HhFBUMZm/3R0Cothls="},
    {"roman nine to IX", "\342\205\250",
     "SCRAM-SHA-256$4096:DwYAc3xTxvnkmIu7locEiQ=="
     "$mIg44F21oLX07Hz9PMuEIh85WQ3u0635Oa9kbJDEhQ4=:x0m99aj4M4gRGw7621p1fc05jT5rjBRSiAerRA0Hd6w="},
    {"no-break space to space", "a b\302\240c",
     "SCRAM-SHA-256$4096:F3rlepbIIXHeX2pbz+oqXA=="
     "$XuYJeTKcbTD+yKN1H1PMUTFJrvitvFvyw+T0I/kF3w0=:IU2TpPOog0g21i4MApey9uU5M96OcceD9ra3ZNZeDKk="},
    {"ASCII control is taken as it is", "\007",
     "SCRAM-SHA-256$4096:+3LyHcSGNA1DxWiind/EmQ=="
     "$kXPxB5z5FTMkOPFr5gozaRd2jacirKywB4D2rKcqOWw=:MJRD9oycohohbGqrVRsBaddCQN23ywS80la4bK1PFtM="},
    {"bidi violation: as it is", "\330\2471",
     "SCRAM-SHA-256$4096:xvr41+9H/S2mw7bn24vtow=="
     "$FeUBnJwjVw5Uf1xfRAApZMYfH9/40vPKzkY+uHpF23g=:TEJrYFGfRlzGKx2Vkxh13kWklDrzx5zvhYc3PrFH7jY="},
    {"control and non-ASCII: as it is", "x\007\303\251",
     "SCRAM-SHA-256$4096:gUWgc/stGd5albvaM1Ke+A=="
     "$y8NHneZQfxui+/+hpWu1tFNF/aGByXovi6jeny2VFm0=:ZXjpFPzMTRoTPzLHyhiMGEw7n9AdLbnQyP3mE8vcLqo="},
    {"nothing left: as it is", "\302\255",
     "SCRAM-SHA-256$4096:EPaHGVlZC3k4DZi0oWkHDg=="
     "$kchWlcPSUfCUfgLSkJ2dxyEmmEXZ8hrqCEpuNeGMnKM=:uAyBXNrhpwp8uMm+ovrCO2MFaE0oNCsJIUF+JR3ypNo="},
    {"ogham space", "\341\232\200x",
     "SCRAM-SHA-256$4096:3wE3tJlSF64osK3o/1c/3A=="
     "$AVloNdVmCHFFFuJM75uA6qydWkYWmDS1kE3OYtPELNI=:kfiqm7f4797kQefwWEVen4V7rHijWO9hxsbnHxuJ7tU="},
    {"compatibility composition", "\341\272\233\314\243",
     "SCRAM-SHA-256$4096:Yb5GJxRQ4ZxRjI2HP5HAZA=="
     "$7gCWy7s25GWsswWKK9v5YkNVA+UCD5Bmg/CjmjwoT/4=:wTzAD+BgPYEMdsgwlffQb2h3IwUMaWLBQAQl9raW9QY="},
    {"unassigned in Unicode 3.2: as it is", "\310\241y",
     "SCRAM-SHA-256$4096:AXnVylQSNhMtgpvqxIKYNg=="
     "$3tx2V2LgquhSwzmZSLI1cD8TGPQvXaulD4Ox7aLQyaU=:MWzUgLZ4YerohH+mmhZmL1uNZN24xlUVGOzVFHpxfJY="},
    {"four bytes", "\360\237\230\200 ok",
     "SCRAM-SHA-256$4096:F5xMShvAOqBCaJF48iZdJA=="
     "$/hWuTRXAchsh5CLbCF9ILxLp08U8jb9zkCrcPAbhHWs=:lZx97O+CfKbuZ61Q9eNACVQHd72CxoAfg4UvSh2pDRA="},
    {"line separator prohibited: as it is", "p\342\200\250q",
     "SCRAM-SHA-256$4096:s1gAxaDq+VFa8wqd/Q9VCA=="
     "$wQeNLi80z+jOT2DBoFCQPAFw4fajGbIKxEctt2QeNMA=:u5s5/+xoh4e+ZsiKueM8GcovjIAA2jaHTqjE6Ii75KU="},
    {"spaces", "  lead",
     "SCRAM-SHA-256$4096:piHkQuDh40qbTxBfNyUmng=="
     "$L69hJ1gSCa0+ddIPfXC4v5j/Jxy+w0jbVlJ/5cXtZyo=:uygWrCUFOWuO31c057b4h6HjlHlo7wpJzqa8E+TBNe0="},
    {"comma and equals", "pass,word=1",
     "SCRAM-SHA-256$4096:HgJ5W1AAvzn6rzhmRT713g=="
     "$Uwc/TxeDV0v4L8W6SKOl+d5lPlsiaGuIAgkpUqeJQII=:1wXziL8Ij7nNEtxXXXdxnEsPFwVAUksDhXErcu72UJE="},
    {"right to left", "\330\2471\330\250",
     "SCRAM-SHA-256$4096:kUuN6w4nePZcp9b+joIMHg=="
     "$Q21Hfw4SKzmgFvqGzNQ7e7Aziy9F0ZPpEWSJsw27J8k=:2TUhzPPZcbAGh0nvvxo1QQx9oipsuvpeEUCI5rn/psA="},
    {"hangul", "\355\225\234\352\270\200",
     "SCRAM-SHA-256$4096:Zjg+uqfRzsKv8cbD536clw=="
     "$rpcd1VSSzP/skTS16HBicq8KycBRLr2B0F1LsqzbXZ4=:QylGBE+LtN4Y8J4fJj4U9+KAYL027lM7a6tjpWK75tg="},
    {"zero width space", "\342\200\213zz",
     "SCRAM-SHA-256$4096:VdcS9fnhabxa3sPkXLdavg=="
     "$hle+fi9scGkYD1tT9y4MxvtIb1cL2OBDtaN8iNbwzjI=:Z/oM+jv0WpAm9pz63OEVaz+K9EdP1n9aQg0oz7AWUj8="},
    {"ligature", "\357\254\201",
     "SCRAM-SHA-256$4096:aV4aGKKV6eFemcadcu3Y4A=="
     "$cCI9aRhi3uSlgY1HhucL9hvWH9q9lXpyubVVhclYI+U=:SiXv20p0s7B8lAgfsV/hACVPOzh32CHVP5JSq8TKolY="},
    {"256 bytes", K64 K64 K64 K64,
     "SCRAM-SHA-256$4096:ztEV0e3E5dhKAU0zojR1Xg=="
     "$d/fG1tc7MBayCksA8hVTN5378wPv/4AUKCZZ++8WkFI=:yo4TlU+J42vkv9+OKL0NBM+VFMKv3y6e9oCRwtMmAoU="},
};

static void test_postgres_secrets(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(POSTGRES_SECRETS) / sizeof(*POSTGRES_SECRETS); i++) {
        struct scram_secret secret = secret_of(POSTGRES_SECRETS[i].secret);
        if (!log_in(&secret, POSTGRES_SECRETS[i].password, NULL, NULL))
            fail_msg("%s: refused", POSTGRES_SECRETS[i].name);
        if (log_in(&secret, "another", NULL, NULL))
            fail_msg("%s: a wrong password is taken", POSTGRES_SECRETS[i].name);
    }
}

/* Not UTF-8 at all: taken as it is, by secret and login alike. */
static void test_invalid_utf8_password(void **state)
{
    (void)state;
    struct scram_secret secret;
    const char *const passwords[] = {"\xff\xfe", "caf\xe9", "\xed\xa0\x80", "\xc0\x80",
                                     "\xf8\x88\x80\x80\x80"};
    for (size_t i = 0; i < sizeof(passwords) / sizeof(*passwords); i++) {
        assert_true(scram_secret_make(passwords[i], &secret));
        assert_true(log_in(&secret, passwords[i], NULL, NULL));
        assert_false(log_in(&secret, "caf\xe8", NULL, NULL));
        char *prepared = prepare_password(passwords[i]);
        assert_string_equal(prepared, passwords[i]);
        free(prepared);
    }
}

static void test_made_secret(void **state)
{
    (void)state;
    struct scram_secret a, b;
    assert_true(scram_secret_make("pencil", &a));
    assert_true(scram_secret_make("pencil", &b));
    assert_int_equal(a.iterations, 4096);
    assert_int_equal(a.salt_length, 16);
    assert_memory_not_equal(a.salt, b.salt, 16);
    assert_true(log_in(&a, "pencil", NULL, NULL));
    assert_false(log_in(&a, "Pencil", NULL, NULL));
    assert_false(log_in(&a, "pencil ", NULL, NULL));
    assert_false(log_in(&a, "", NULL, NULL));
}

/* The keys of a client that logged in let us log in to any server with the same secret. */
static void test_keys_pass_through(void **state)
{
    (void)state;
    struct scram_secret secret = secret_of(POSTGRES_SECRETS[0].secret), other;
    struct scram_keys keys, again;
    assert_true(log_in(&secret, POSTGRES_SECRETS[0].password, NULL, &keys));
    assert_true(keys.present);
    assert_true(log_in(&secret, NULL, &keys, &again));
    assert_memory_equal(keys.client_key, again.client_key, SCRAM_KEY_LENGTH);
    assert_memory_equal(keys.server_key, again.server_key, SCRAM_KEY_LENGTH);
    /* same password, other salt; same salt, other iterations; no keys at all */
    assert_true(scram_secret_make(POSTGRES_SECRETS[0].password, &other));
    assert_false(log_in(&other, NULL, &keys, NULL));
    other = secret;
    other.iterations++;
    assert_false(log_in(&other, NULL, &keys, NULL));
    assert_false(log_in(&secret, NULL, &(struct scram_keys){0}, NULL));
    assert_false(log_in(&secret, NULL, NULL, NULL));
}

static void test_no_keys_after_failure(void **state)
{
    (void)state;
    struct scram_secret secret = secret_of(POSTGRES_SECRETS[0].secret);
    struct scram_keys keys = {.present = true};
    assert_false(log_in(&secret, "wrong", NULL, &keys));
    assert_false(keys.present);
    const unsigned char zeros[SCRAM_KEY_LENGTH] = {0};
    assert_memory_equal(keys.client_key, zeros, SCRAM_KEY_LENGTH);
    assert_memory_equal(keys.server_key, zeros, SCRAM_KEY_LENGTH);
}

static void test_doomed(void **state)
{
    (void)state;
    struct scram_secret secret = secret_of(POSTGRES_SECRETS[0].secret);
    struct exchange ex = exchange_new(&secret, true, POSTGRES_SECRETS[0].password, NULL);
    assert_true(exchange_start(&ex));
    assert_int_equal(exchange_finish(&ex), SCRAM_FAILED);
    assert_int_equal(buffer_length(&ex.verifier), 0);
    exchange_free(&ex);
}

static void test_mock_secret(void **state)
{
    (void)state;
    struct scram_secret a, again, b;
    scram_secret_mock("ghost", &a);
    scram_secret_mock("ghost", &again);
    scram_secret_mock("ghosts", &b);
    assert_memory_equal(&a, &again, sizeof(a));
    assert_memory_not_equal(a.salt, b.salt, 16);
    assert_memory_not_equal(a.stored_key, a.salt, 16);
    assert_int_equal(a.iterations, 4096);
    assert_int_equal(a.salt_length, 16);
    assert_false(log_in(&a, "", NULL, NULL));
    assert_false(log_in(&a, "ghost", NULL, NULL));
}

/* ---- secrets that are none ---- */

#define KEY44 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

static void test_secret_refused(void **state)
{
    (void)state;
    const char *const cases[] = {
        "",
        "secret",
        "SCRAM-SHA-256",
        "SCRAM-SHA-256$",
        "SCRAM-SHA-1$4096:c2FsdA==$" KEY44 ":" KEY44,
        "scram-sha-256$4096:c2FsdA==$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$:c2FsdA==$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$0:c2FsdA==$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$-1:c2FsdA==$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$4096x:c2FsdA==$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$2147483648:c2FsdA==$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$99999999999999999999:c2FsdA==$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$4096:$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$4096:c2FsdA=$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$4096:c2F=dA==$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$4096:====$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$4096: c2FsdA= $" KEY44 ":" KEY44,
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY44,
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY44 ":",
        "SCRAM-SHA-256$4096:c2FsdA==$AAAA:" KEY44,
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY44 ":AAAA",
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY44 ":" KEY44 "x",
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY44 "AAAA:" KEY44,
        /* a salt of 66 bytes does not fit */
        "SCRAM-SHA-256$4096:" KEY44 KEY44 "$" KEY44 ":" KEY44,
        "SCRAM-SHA-256$4096:" K64 "kkkkkkkkkkkkkkkkkkkkkkkk$" KEY44 ":" KEY44,
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct scram_secret secret;
        if (scram_secret_parse(cases[i], &secret))
            fail_msg("taken: %s", cases[i]);
    }
}

static void test_secret_limits(void **state)
{
    (void)state;
    struct scram_secret secret;
    assert_true(scram_secret_parse("SCRAM-SHA-256$2147483647:AA==$" KEY44 ":" KEY44, &secret));
    assert_int_equal(secret.iterations, 2147483647);
    assert_int_equal(secret.salt_length, 1);
    assert_true(scram_secret_parse(
        "SCRAM-SHA-256$1:" K64 "kkkkkkkkkkkkkkkkkkkkkA==$" KEY44 ":" KEY44, &secret));
    assert_int_equal(secret.salt_length, 64);
}

/* ---- hostile clients ---- */

static enum scram_result first_step(const char *message, size_t len)
{
    struct scram_secret secret = secret_of(POSTGRES_SECRETS[0].secret);
    struct scram_server *server = scram_server_new(&secret, false);
    struct buffer reply = {0};
    enum scram_result result = scram_server_step(server, message, len, &reply);
    if (result != SCRAM_CONTINUE)
        assert_int_equal(buffer_length(&reply), 0);
    buffer_release(&reply);
    scram_server_free(server);
    return result;
}

static void test_client_first(void **state)
{
    (void)state;
    static const struct {
        const char *message;
        enum scram_result result;
    } cases[] = {
        {"n,,n=,r=abc", SCRAM_CONTINUE},
        {"y,,n=,r=abc", SCRAM_CONTINUE},
        {"n,,n=joe,r=abc", SCRAM_CONTINUE},
        {"n,,n=joe,r=abc,x=1,y=2", SCRAM_CONTINUE},
        {"p=tls-server-end-point,,n=,r=abc", SCRAM_MALFORMED},
        {"p=tls-unique,,n=,r=abc", SCRAM_MALFORMED},
        {"p,,n=,r=abc", SCRAM_MALFORMED},
        {"N,,n=,r=abc", SCRAM_MALFORMED},
        {"nn,,n=,r=abc", SCRAM_MALFORMED},
        {"x,,n=,r=abc", SCRAM_MALFORMED},
        {",,n=,r=abc", SCRAM_MALFORMED},
        {"n,a=root,n=,r=abc", SCRAM_MALFORMED},
        {"n,n=,r=abc", SCRAM_MALFORMED},
        {"n,,m=ext,n=,r=abc", SCRAM_MALFORMED},
        {"n,,n=", SCRAM_MALFORMED},
        {"n,,r=abc", SCRAM_MALFORMED},
        {"n,,r=abc,n=", SCRAM_MALFORMED},
        {"n,,n=,r=", SCRAM_MALFORMED},
        {"n,,n=,r=a b", SCRAM_MALFORMED},
        {"n,,n=,r=a\tb", SCRAM_MALFORMED},
        {"n,,n=,r=a\xc3\xa9", SCRAM_MALFORMED},
        {"n,,n=,r=abc,junk", SCRAM_MALFORMED},
        {"n,,n=,r=abc,1=2", SCRAM_MALFORMED},
        {"n,,", SCRAM_MALFORMED},
        {"n,", SCRAM_MALFORMED},
        {"n", SCRAM_MALFORMED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        if (first_step(cases[i].message, strlen(cases[i].message)) != cases[i].result)
            fail_msg("%s", cases[i].message);
    }
    assert_int_equal(first_step(NULL, 0), SCRAM_MALFORMED);
    assert_int_equal(first_step("n,,n=,r=ab\0c", 12), SCRAM_MALFORMED);
}

/* The nonce fills what a message may have, no more. */
static void test_client_first_length(void **state)
{
    (void)state;
    char message[MESSAGE_MAX + 1];
    memset(message, 'r', sizeof(message));
    memcpy(message, "n,,n=,r=", 8);
    assert_int_equal(first_step(message, MESSAGE_MAX), SCRAM_CONTINUE);
    assert_int_equal(first_step(message, MESSAGE_MAX + 1), SCRAM_MALFORMED);
}

/* Puts `format` in place of the client's final message; NONCE and PROOF stand for the right ones. */
static char *forge(const struct exchange *ex, const char *format)
{
    struct buffer out = {0};
    struct text rest = {buffer_head(&ex->final), buffer_length(&ex->final)}, binding, nonce, proof;
    assert_true(take_attribute(&rest, 'c', &binding) && take_attribute(&rest, 'r', &nonce) &&
                take_attribute(&rest, 'p', &proof));
    for (const char *p = format; *p;) {
        if (strncmp(p, "NONCE", 5) == 0) {
            append_text(&out, nonce);
            p += 5;
        } else if (strncmp(p, "PROOF", 5) == 0) {
            append_text(&out, proof);
            p += 5;
        } else {
            buffer_append(&out, p++, 1);
        }
    }
    buffer_append(&out, "", 1);
    return out.data;
}

static enum scram_result forged_final(const char *format)
{
    struct scram_secret secret = secret_of(POSTGRES_SECRETS[0].secret);
    struct exchange ex = exchange_new(&secret, false, POSTGRES_SECRETS[0].password, NULL);
    assert_true(exchange_start(&ex));
    char *message = forge(&ex, format);
    enum scram_result result = scram_server_step(ex.server, message, strlen(message), &ex.verifier);
    assert_int_equal(buffer_length(&ex.verifier) > 0, result == SCRAM_OK);
    free(message);
    exchange_free(&ex);
    return result;
}

static void test_client_final(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        enum scram_result result;
    } cases[] = {
        {"c=biws,r=NONCE,p=PROOF", SCRAM_OK},
        {"c=biws,r=NONCE,p=" KEY44, SCRAM_FAILED},
        /* covered by the proof, so a changed message fails */
        {"c=biws,r=NONCE,x=1,p=PROOF", SCRAM_FAILED},
        {"c=eSws,r=NONCE,p=PROOF", SCRAM_MALFORMED},
        {"c=cD10bHMtdW5pcXVlLCw=,r=NONCE,p=PROOF", SCRAM_MALFORMED},
        {"c=,r=NONCE,p=PROOF", SCRAM_MALFORMED},
        {"c=biws,r=NONCEx,p=PROOF", SCRAM_MALFORMED},
        {"c=biws,r=xNONCE,p=PROOF", SCRAM_MALFORMED},
        {"c=biws,r=,p=PROOF", SCRAM_MALFORMED},
        {"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=PROOF", SCRAM_MALFORMED},
        {"r=NONCE,c=biws,p=PROOF", SCRAM_MALFORMED},
        {"c=biws,r=NONCE", SCRAM_MALFORMED},
        {"c=biws,r=NONCE,", SCRAM_MALFORMED},
        {"c=biws,r=NONCE,p=", SCRAM_MALFORMED},
        {"c=biws,r=NONCE,p=PROOF,", SCRAM_MALFORMED},
        {"c=biws,r=NONCE,p=PROOF,x=1", SCRAM_MALFORMED},
        {"c=biws,r=NONCE,p=PROOFAAAA", SCRAM_MALFORMED},
        {"c=biws,r=NONCE,p=AAAA", SCRAM_MALFORMED},
        {"c=biws,r=NONCE,p=not base64", SCRAM_MALFORMED},
        {"c=biws,r=NONCE,p=" K64 K64 K64 K64 K64 K64 K64 K64, SCRAM_MALFORMED},
        {"c=biws,r=NONCE,p=" K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64,
         SCRAM_MALFORMED},
        {"c=biws,r=NONCE,junk,p=PROOF", SCRAM_MALFORMED},
        {"x", SCRAM_MALFORMED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        enum scram_result result = forged_final(cases[i].format);
        if (result != cases[i].result)
            fail_msg("%s: %d", cases[i].format, (int)result);
    }
}

/* A client that says "y" must repeat "y": else somebody between took our offer of PLUS away. */
static void test_flag_y(void **state)
{
    (void)state;
    struct scram_secret secret = secret_of(POSTGRES_SECRETS[0].secret);
    for (int honest = 0; honest < 2; honest++) {
        struct scram_server *server = scram_server_new(&secret, false);
        struct buffer reply = {0}, final = {0};
        assert_int_equal(scram_server_step(server, "y,,n=,r=abc", 11, &reply), SCRAM_CONTINUE);
        append_string(&final, honest ? "c=eSws,r=" : "c=biws,r=");
        buffer_append(&final, buffer_head(&server->nonce), buffer_length(&server->nonce));
        append_string(&final, ",p=" KEY44);
        assert_int_equal(
            scram_server_step(server, buffer_head(&final), buffer_length(&final), &reply),
            honest ? SCRAM_FAILED : SCRAM_MALFORMED);
        buffer_release(&reply);
        buffer_release(&final);
        scram_server_free(server);
    }
}

/* Each exchange has its own nonce: an answer heard elsewhere is worth nothing. */
static void test_replay(void **state)
{
    (void)state;
    struct scram_secret secret = secret_of(POSTGRES_SECRETS[0].secret);
    struct exchange ex = exchange_new(&secret, false, POSTGRES_SECRETS[0].password, NULL);
    assert_true(exchange_start(&ex));
    struct scram_server *second = scram_server_new(&secret, false);
    struct buffer reply = {0};
    assert_int_equal(
        scram_server_step(second, buffer_head(&ex.first), buffer_length(&ex.first), &reply),
        SCRAM_CONTINUE);
    assert_int_equal(
        scram_server_step(second, buffer_head(&ex.final), buffer_length(&ex.final), &reply),
        SCRAM_MALFORMED);
    buffer_release(&reply);
    scram_server_free(second);
    exchange_free(&ex);
}

/* After its end an exchange takes nothing more, whichever end it was. */
static void test_steps_after_the_end(void **state)
{
    (void)state;
    struct scram_secret secret = secret_of(POSTGRES_SECRETS[0].secret);
    struct exchange ex = exchange_new(&secret, false, POSTGRES_SECRETS[0].password, NULL);
    assert_true(exchange_start(&ex));
    assert_int_equal(exchange_finish(&ex), SCRAM_OK);
    assert_int_equal(exchange_finish(&ex), SCRAM_MALFORMED);
    exchange_free(&ex);

    struct scram_server *server = scram_server_new(&secret, false);
    struct buffer reply = {0};
    assert_int_equal(scram_server_step(server, "x", 1, &reply), SCRAM_MALFORMED);
    assert_int_equal(scram_server_step(server, "n,,n=,r=abc", 11, &reply), SCRAM_MALFORMED);
    assert_int_equal(buffer_length(&reply), 0);
    scram_server_free(server);
    scram_server_free(NULL);
}

/* ---- hostile servers ---- */

static bool answer_server_first(const char *format, const struct scram_keys *keys)
{
    struct scram_client *client = scram_client_new(keys ? NULL : "secret", keys);
    struct buffer first = {0}, message = {0}, out = {0};
    scram_client_first(client, &first);
    for (const char *p = format; *p;) {
        if (strncmp(p, "NONCE", 5) == 0) {
            append_string(&message, client->nonce);
            p += 5;
        } else {
            buffer_append(&message, p++, 1);
        }
    }
    bool ok = scram_client_final(client, buffer_head(&message), buffer_length(&message), &out);
    assert_int_equal(buffer_length(&out) > 0, ok);
    buffer_release(&first);
    buffer_release(&message);
    buffer_release(&out);
    scram_client_free(client);
    return ok;
}

static void test_server_first(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        bool ok;
    } cases[] = {
        {"r=NONCEabc,s=c2FsdA==,i=1", true},
        {"r=NONCEabc,s=c2FsdA==,i=4096,x=new", true},
        {"r=NONCEabc,s=" K64 K64 K64 K64 ",i=1", true},
        {"r=NONCE,s=c2FsdA==,i=4096", false},
        {"r=abc,s=c2FsdA==,i=4096", false},
        {"r=xNONCEabc,s=c2FsdA==,i=4096", false},
        {"r=NONCEa bc,s=c2FsdA==,i=4096", false},
        {"r=NONCEabc,s=,i=4096", false},
        {"r=NONCEabc,s=c2Fsd,i=4096", false},
        {"r=NONCEabc,s=c2FsdA==,i=0", false},
        {"r=NONCEabc,s=c2FsdA==,i=-1", false},
        {"r=NONCEabc,s=c2FsdA==,i=", false},
        {"r=NONCEabc,s=c2FsdA==,i=4096x", false},
        {"r=NONCEabc,s=c2FsdA==,i=4294967297", false},
        /* would compute for many minutes */
        {"r=NONCEabc,s=c2FsdA==,i=2147483647", false},
        {"r=NONCEabc,s=c2FsdA==,i=1000001", false},
        {"m=must,r=NONCEabc,s=c2FsdA==,i=4096", false},
        {"r=NONCEabc,s=c2FsdA==", false},
        {"r=NONCEabc,i=4096,s=c2FsdA==", false},
        {"r=NONCEabc,s=c2FsdA==,i=4096,junk", false},
        {"e=other-error", false},
        {"", false},
        /* longer than any message we take */
        {"r=NONCE" K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 K64 ",s=AA==,i=1",
         false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        if (answer_server_first(cases[i].format, NULL) != cases[i].ok)
            fail_msg("%s", cases[i].format);
    }
}

/* A salt longer than the one the keys were made for must not be compared beyond it. */
static void test_keys_and_long_salt(void **state)
{
    (void)state;
    struct scram_keys keys = {.present = true, .iterations = 1, .salt_length = 64};
    assert_false(answer_server_first("r=NONCEabc,s=" K64 K64 K64 K64 ",i=1", &keys));
}

static bool verify_forged(const char *message, size_t len)
{
    struct scram_secret secret = secret_of(POSTGRES_SECRETS[0].secret);
    struct exchange ex = exchange_new(&secret, false, POSTGRES_SECRETS[0].password, NULL);
    assert_true(exchange_start(&ex));
    bool ok = scram_client_verify(ex.client, message, len);
    exchange_free(&ex);
    return ok;
}

static void test_server_final(void **state)
{
    (void)state;
    const char *const cases[] = {
        "",
        "v=",
        "v=" KEY44,
        "v=" KEY44 "AAAA",
        "v=AAAA",
        "e=invalid-proof",
        "v=" K64 K64 K64 K64 K64 K64 K64,
        "x",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        if (verify_forged(cases[i], strlen(cases[i])))
            fail_msg("%s", cases[i]);
    }
    assert_false(verify_forged(NULL, 0));
}

/* The server knows the stored key but not the server key: somebody stole half a secret. */
static void test_server_without_its_key(void **state)
{
    (void)state;
    struct scram_secret secret = secret_of(POSTGRES_SECRETS[0].secret);
    secret.server_key[0] ^= 1;
    assert_false(log_in(&secret, POSTGRES_SECRETS[0].password, NULL, NULL));
}

/* The server's last word is only believed once, and not before the client has proved itself. */
static void test_client_order(void **state)
{
    (void)state;
    struct scram_client *client = scram_client_new("secret", NULL);
    struct buffer out = {0};
    assert_false(scram_client_verify(client, "v=" KEY44, strlen("v=" KEY44)));
    scram_client_first(client, &out);
    assert_int_equal(buffer_length(&out), 0);
    scram_client_free(client);

    client = scram_client_new("secret", NULL);
    scram_client_first(client, &out);
    buffer_clear(&out);
    assert_false(scram_client_verify(client, "v=" KEY44, strlen("v=" KEY44)));
    assert_false(scram_client_final(client, "r=a,s=AA==,i=1", 14, &out));
    assert_int_equal(buffer_length(&out), 0);
    scram_client_free(client);
    scram_client_free(NULL);
    buffer_release(&out);
}

/* ---- md5 ---- */

static void test_md5(void **state)
{
    (void)state;
    const unsigned char salt[4] = {1, 2, 3, 4};
    char from_password[MD5_SECRET_LENGTH + 1], from_secret[MD5_SECRET_LENGTH + 1];
    /* Made by PostgreSQL 15: CREATE ROLE m PASSWORD 'secret' with password_encryption = md5. */
    const char *stored = "md5b52328d7451bfeace80c4b8c338106f9";
    assert_true(md5_response("secret", "m", salt, from_password));
    assert_true(md5_response(stored, "m", salt, from_secret));
    assert_string_equal(from_password, from_secret);
    assert_string_equal(from_password, "md5b441c8c79190ee049d2b529b74d69aa7");
    assert_true(md5_response("secret", "n", salt, from_secret));
    assert_string_not_equal(from_password, from_secret);
    assert_true(md5_response("secret", "m", (const unsigned char[4]){0}, from_secret));
    assert_string_not_equal(from_password, from_secret);
}

static void test_md5_secrets_that_are_passwords(void **state)
{
    (void)state;
    const unsigned char salt[4] = {1, 2, 3, 4};
    char as_secret[MD5_SECRET_LENGTH + 1], as_password[MD5_SECRET_LENGTH + 1];
    assert_true(md5_response("md5b52328d7451bfeace80c4b8c338106f9", "m", salt, as_secret));
    /* upper case and a wrong length are no secrets, as in Postgres */
    assert_true(md5_response("md5B52328D7451BFEACE80C4B8C338106F9", "m", salt, as_password));
    assert_string_not_equal(as_secret, as_password);
    assert_true(md5_response("md5b52328d7451bfeace80c4b8c338106f", "m", salt, as_password));
    assert_string_not_equal(as_secret, as_password);
    assert_true(md5_response("", "", salt, as_password));
    assert_int_equal(strlen(as_password), MD5_SECRET_LENGTH);
    assert_false(md5_response(POSTGRES_SECRETS[0].secret, "m", salt, as_password));
}

static void test_md5_secret(void **state)
{
    (void)state;
    char made[MD5_SECRET_LENGTH + 1];
    assert_true(md5_secret("secret", "m", made));
    assert_string_equal(made, "md5b52328d7451bfeace80c4b8c338106f9");
    assert_true(md5_is_secret(made));
    assert_false(md5_is_secret("md5b52328d7451bfeace80c4b8c338106f"));
    assert_false(md5_is_secret("md5B52328D7451BFEACE80C4B8C338106F9"));
    assert_false(md5_is_secret("") || md5_is_secret("md5"));
}

/* A password in clear text against a secret of Postgres: the keys are those that SCRAM would prove. */
static void test_verify(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof POSTGRES_SECRETS / sizeof POSTGRES_SECRETS[0]; i++) {
        struct scram_secret secret;
        struct scram_keys keys;
        assert_true(scram_secret_parse(POSTGRES_SECRETS[i].secret, &secret));
        assert_true(scram_secret_verify(&secret, POSTGRES_SECRETS[i].password, &keys));
        assert_true(keys.present);
        assert_int_equal(keys.iterations, secret.iterations);
        assert_int_equal(keys.salt_length, secret.salt_length);
        assert_memory_equal(keys.salt, secret.salt, (size_t)secret.salt_length);
        assert_memory_equal(keys.server_key, secret.server_key, SCRAM_KEY_LENGTH);
        assert_false(scram_secret_verify(&secret, "another", &keys));
        assert_false(keys.present);
        assert_false(scram_secret_verify(&secret, "", &keys));
    }
}

/* ---- channel binding ---- */

struct bound_case {
    const char *client_data; /* NULL: the client does not bind */
    bool client_offered;
    const char *server_data; /* NULL: the server does not offer it */
    bool plus;               /* the mechanism the client names */
    enum scram_result first, last;
};

/* An exchange of our own two roles; the client's verdict must be the server's. */
static void check_bound(const struct bound_case *c)
{
    struct scram_secret secret = rfc_secret();
    struct scram_server *server = scram_server_new(&secret, false);
    struct scram_client *client = scram_client_new("pencil", NULL);
    struct buffer first = {0}, challenge = {0}, final = {0}, verdict = {0};
    if (c->server_data)
        scram_server_bind(server, (const unsigned char *)c->server_data, strlen(c->server_data));
    if (c->client_data)
        scram_client_bind(client, (const unsigned char *)c->client_data, strlen(c->client_data),
                          c->client_offered);
    scram_server_choose(server, c->plus);
    scram_client_first(client, &first);
    assert_int_equal(
        scram_server_step(server, buffer_head(&first), buffer_length(&first), &challenge),
        c->first);
    if (c->first == SCRAM_CONTINUE) {
        assert_true(
            scram_client_final(client, buffer_head(&challenge), buffer_length(&challenge), &final));
        assert_int_equal(
            scram_server_step(server, buffer_head(&final), buffer_length(&final), &verdict),
            c->last);
    }
    if (c->first == SCRAM_CONTINUE && c->last == SCRAM_OK)
        assert_true(scram_client_verify(client, buffer_head(&verdict), buffer_length(&verdict)));
    assert_int_equal(scram_client_is_bound(client), c->last == SCRAM_OK && c->plus);
    buffer_release(&first);
    buffer_release(&challenge);
    buffer_release(&final);
    buffer_release(&verdict);
    scram_server_free(server);
    scram_client_free(client);
}

static void test_channel_binding(void **state)
{
    (void)state;
    static const struct bound_case cases[] = {
        {"hash", true, "hash", true, SCRAM_CONTINUE, SCRAM_OK},
        {NULL, false, "hash", false, SCRAM_CONTINUE, SCRAM_OK}, /* cannot or will not */
        {"hash", false, NULL, false, SCRAM_CONTINUE, SCRAM_OK}, /* could, but is not offered */
        {"hash", true, "other", true, SCRAM_CONTINUE, SCRAM_MALFORMED}, /* somebody in between */
        {"hash", true, "has", true, SCRAM_CONTINUE, SCRAM_MALFORMED},
        {"hash", false, "hash", false, SCRAM_MALFORMED, SCRAM_MALFORMED}, /* list cut short */
        {"hash", true, "hash", false, SCRAM_MALFORMED, SCRAM_MALFORMED},
        {NULL, false, "hash", true, SCRAM_MALFORMED, SCRAM_MALFORMED},
        {"hash", true, NULL, true, SCRAM_MALFORMED, SCRAM_MALFORMED}, /* was not offered */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_bound(&cases[i]);
}

static void test_binding_problems_in_words(void **state)
{
    (void)state;
    struct scram_secret secret = rfc_secret();
    struct buffer reply = {0};
    struct scram_server *server = scram_server_new(&secret, false);
    scram_server_bind(server, (const unsigned char *)"hash", 4);
    assert_null(scram_server_problem(server));
    assert_int_equal(scram_server_step(server, "y,,n=,r=abc", 11, &reply), SCRAM_MALFORMED);
    assert_non_null(strstr(scram_server_problem(server), "does support channel binding"));
    scram_server_free(server);
    server = scram_server_new(&secret, false);
    scram_server_bind(server, (const unsigned char *)"hash", 4);
    scram_server_choose(server, true);
    assert_int_equal(scram_server_step(server, "p=tls-unique,,n=,r=a", 20, &reply),
                     SCRAM_MALFORMED);
    assert_non_null(strstr(scram_server_problem(server), "tls-server-end-point"));
    scram_server_free(server);
    assert_int_equal(buffer_length(&reply), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc_server),
        cmocka_unit_test(test_rfc_client),
        cmocka_unit_test(test_postgres_secrets),
        cmocka_unit_test(test_invalid_utf8_password),
        cmocka_unit_test(test_made_secret),
        cmocka_unit_test(test_keys_pass_through),
        cmocka_unit_test(test_no_keys_after_failure),
        cmocka_unit_test(test_doomed),
        cmocka_unit_test(test_mock_secret),
        cmocka_unit_test(test_secret_refused),
        cmocka_unit_test(test_secret_limits),
        cmocka_unit_test(test_client_first),
        cmocka_unit_test(test_client_first_length),
        cmocka_unit_test(test_client_final),
        cmocka_unit_test(test_flag_y),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_steps_after_the_end),
        cmocka_unit_test(test_server_first),
        cmocka_unit_test(test_keys_and_long_salt),
        cmocka_unit_test(test_server_final),
        cmocka_unit_test(test_server_without_its_key),
        cmocka_unit_test(test_client_order),
        cmocka_unit_test(test_md5),
        cmocka_unit_test(test_channel_binding),
        cmocka_unit_test(test_binding_problems_in_words),
        cmocka_unit_test(test_md5_secrets_that_are_passwords),
        cmocka_unit_test(test_md5_secret),
        cmocka_unit_test(test_verify),
    };
    return cmocka_run_group_tests_name("scram", tests, NULL, NULL);
}
