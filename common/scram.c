/* scram.c: SCRAM-SHA-256 secrets and both sides of the exchange, with channel binding. */
#include "pgshunt/scram.h"

#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stringprep.h>

#include "pgshunt/arena.h"

#define SECRET_PREFIX "SCRAM-SHA-256$"
#define ITERATIONS 4096
/* What a server may make us compute: about half a second. Without a bound one hostile server would
 * stop a worker for a quarter of an hour. */
#define ITERATIONS_MAX 1000000
#define SALT_LENGTH 16
#define SALT_MAX sizeof(((struct scram_secret *)0)->salt)
#define NONCE_RAW 18 /* as Postgres; 24 characters of base64 */
#define NONCE_TEXT 24
#define MESSAGE_MAX 1024 /* as Postgres: PG_MAX_SASL_MESSAGE_LENGTH */
#define BASE64_LENGTH(n) (((n) + 2) / 3 * 4)
#define GS2_NONE "n,,"  /* the client binds nothing */
#define GS2_COULD "y,," /* it would, but believes that the server does not */
#define GS2_BOUND "p=tls-server-end-point,,"

/* A part of a message; not NUL-terminated. */
struct text {
    const char *at;
    size_t len;
};

/* ---- cryptography ---- */

static bool hmac(const unsigned char key[SCRAM_KEY_LENGTH], const void *data, size_t len,
                 unsigned char out[SCRAM_KEY_LENGTH])
{
    return HMAC(EVP_sha256(), key, SCRAM_KEY_LENGTH, data, len, out, NULL) != NULL;
}

static bool hash(const unsigned char in[SCRAM_KEY_LENGTH], unsigned char out[SCRAM_KEY_LENGTH])
{
    return EVP_Digest(in, SCRAM_KEY_LENGTH, out, NULL, EVP_sha256(), NULL) == 1;
}

static bool same(const unsigned char a[SCRAM_KEY_LENGTH], const unsigned char b[SCRAM_KEY_LENGTH])
{
    return CRYPTO_memcmp(a, b, SCRAM_KEY_LENGTH) == 0;
}

static void xor_key(unsigned char out[SCRAM_KEY_LENGTH], const unsigned char a[SCRAM_KEY_LENGTH],
                    const unsigned char b[SCRAM_KEY_LENGTH])
{
    for (int i = 0; i < SCRAM_KEY_LENGTH; i++)
        out[i] = a[i] ^ b[i];
}

static bool is_ascii(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text > 127)
            return false;
    }
    return true;
}

/* The password as it goes into the hash; freed by the caller. As Postgres does: ASCII is taken as it
 * is (control characters too), and so is what SASLprep refuses or makes empty. */
static char *prepare_password(const char *password)
{
    char *prepared = NULL;
    if (!is_ascii(password) &&
        stringprep_profile(password, &prepared, "SASLprep", STRINGPREP_NO_UNASSIGNED) ==
            STRINGPREP_OK &&
        *prepared)
        return prepared;
    free(prepared);
    return mem_strdup(password);
}

struct derived {
    unsigned char client_key[SCRAM_KEY_LENGTH];
    unsigned char server_key[SCRAM_KEY_LENGTH];
};

static bool derive_keys(const char *password, const unsigned char *salt, size_t salt_length,
                        int iterations, struct derived *keys)
{
    unsigned char salted[SCRAM_KEY_LENGTH];
    char *prepared = prepare_password(password);
    size_t len = strlen(prepared);
    bool ok = len <= INT_MAX &&
              PKCS5_PBKDF2_HMAC(prepared, (int)len, salt, (int)salt_length, iterations,
                                EVP_sha256(), SCRAM_KEY_LENGTH, salted) == 1 &&
              hmac(salted, "Client Key", strlen("Client Key"), keys->client_key) &&
              hmac(salted, "Server Key", strlen("Server Key"), keys->server_key);
    OPENSSL_cleanse(prepared, len);
    OPENSSL_cleanse(salted, sizeof(salted));
    free(prepared);
    return ok;
}

/* ---- text ---- */

static void append_base64(struct buffer *out, const unsigned char *bytes, size_t len)
{
    unsigned char *to = (unsigned char *)buffer_reserve(out, BASE64_LENGTH(len) + 1);
    out->end += (size_t)EVP_EncodeBlock(to, bytes, (int)len);
}

static size_t base64_padding(struct text text)
{
    size_t padding = 0;
    while (padding < 2 && padding < text.len && text.at[text.len - 1 - padding] == '=')
        padding++;
    return padding;
}

static bool is_base64(struct text text)
{
    size_t digits = text.len - base64_padding(text);
    for (size_t i = 0; i < digits; i++) {
        char c = text.at[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '+' || c == '/'))
            return false;
    }
    return text.len && text.len % 4 == 0;
}

/* Number of bytes decoded into out[max], -1 if the text is not base64 or does not fit. (The decoder
 * of OpenSSL alone forgives spaces and counts padding as data.) */
static int decode_base64(struct text text, unsigned char *out, size_t max)
{
    unsigned char raw[MESSAGE_MAX];
    if (text.len > sizeof(raw) || !is_base64(text))
        return -1;
    int len = EVP_DecodeBlock(raw, (const unsigned char *)text.at, (int)text.len);
    if (len < 0)
        return -1;
    len -= (int)base64_padding(text);
    if ((size_t)len > max)
        return -1;
    memcpy(out, raw, (size_t)len);
    OPENSSL_cleanse(raw, sizeof(raw));
    return len;
}

static bool decode_key(struct text text, unsigned char key[SCRAM_KEY_LENGTH])
{
    return decode_base64(text, key, SCRAM_KEY_LENGTH) == SCRAM_KEY_LENGTH;
}

/* A positive number; -1 for anything else. */
static int parse_iterations(struct text text)
{
    int value = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        if (c < '0' || c > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, c - '0', &value))
            return -1;
    }
    return value > 0 ? value : -1;
}

static bool is_nonce(struct text text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < 0x21 || text.at[i] > 0x7e || text.at[i] == ',')
            return false;
    }
    return text.len > 0;
}

static bool text_is(struct text text, const char *expected)
{
    return text.len == strlen(expected) && memcmp(text.at, expected, text.len) == 0;
}

/* Takes what stands before `separator`, and the separator, off the front of *rest. */
static bool take_until(struct text *rest, char separator, struct text *part)
{
    const char *stop = memchr(rest->at, separator, rest->len);
    if (!stop)
        return false;
    *part = (struct text){rest->at, (size_t)(stop - rest->at)};
    rest->len -= part->len + 1;
    rest->at = stop + 1;
    return true;
}

/* Takes the attribute "name=value" and the comma behind it off the front of *rest. */
static bool take_attribute(struct text *rest, char name, struct text *value)
{
    struct text part;
    if (!take_until(rest, ',', &part)) {
        part = *rest;
        *rest = (struct text){rest->at + rest->len, 0};
    }
    if (part.len < 2 || part.at[0] != name || part.at[1] != '=')
        return false;
    *value = (struct text){part.at + 2, part.len - 2};
    return true;
}

static bool is_letter(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* Extensions we do not know are to be ignored, but they have to be attributes. */
static bool skip_extensions(struct text *rest, char until)
{
    struct text ignored;
    while (rest->len && rest->at[0] != until) {
        if (!is_letter(rest->at[0]) || !take_attribute(rest, rest->at[0], &ignored))
            return false;
    }
    return true;
}

static bool is_message(const char *message, size_t len)
{
    return len > 0 && len <= MESSAGE_MAX && !memchr(message, 0, len);
}

static void append_text(struct buffer *out, struct text text)
{
    buffer_append(out, text.at, text.len);
}

static void append_string(struct buffer *out, const char *string)
{
    buffer_append(out, string, strlen(string));
}

static bool make_nonce(char out[NONCE_TEXT + 1])
{
    unsigned char raw[NONCE_RAW];
    if (RAND_bytes(raw, sizeof(raw)) != 1)
        return false;
    EVP_EncodeBlock((unsigned char *)out, raw, sizeof(raw));
    return true;
}

/* Buffers here have held proofs and salts. */
static void release(struct buffer *buf)
{
    if (buf->data)
        OPENSSL_cleanse(buf->data, buf->cap);
    buffer_release(buf);
}

/* ---- secrets ---- */

bool scram_secret_parse(const char *text, struct scram_secret *secret)
{
    size_t prefix = strlen(SECRET_PREFIX);
    struct text iterations, salt, stored_key;
    if (strncmp(text, SECRET_PREFIX, prefix) != 0)
        return false;
    struct text rest = {text + prefix, strlen(text + prefix)};
    if (!take_until(&rest, ':', &iterations) || !take_until(&rest, '$', &salt) ||
        !take_until(&rest, ':', &stored_key))
        return false;
    *secret = (struct scram_secret){0};
    secret->iterations = parse_iterations(iterations);
    secret->salt_length = decode_base64(salt, secret->salt, SALT_MAX);
    return secret->iterations > 0 && secret->salt_length > 0 &&
           decode_key(stored_key, secret->stored_key) && decode_key(rest, secret->server_key);
}

bool scram_secret_make(const char *password, struct scram_secret *secret)
{
    struct derived keys;
    *secret = (struct scram_secret){.iterations = ITERATIONS, .salt_length = SALT_LENGTH};
    bool ok = RAND_bytes(secret->salt, SALT_LENGTH) == 1 &&
              derive_keys(password, secret->salt, SALT_LENGTH, ITERATIONS, &keys) &&
              hash(keys.client_key, secret->stored_key);
    if (ok)
        memcpy(secret->server_key, keys.server_key, SCRAM_KEY_LENGTH);
    OPENSSL_cleanse(&keys, sizeof(keys));
    return ok;
}

bool scram_secret_verify(const struct scram_secret *secret, const char *password,
                         struct scram_keys *keys)
{
    struct derived derived;
    unsigned char stored_key[SCRAM_KEY_LENGTH];
    bool ok = derive_keys(password, secret->salt, (size_t)secret->salt_length, secret->iterations,
                          &derived) &&
              hash(derived.client_key, stored_key) && same(stored_key, secret->stored_key);
    *keys = (struct scram_keys){.present = ok};
    if (ok) {
        memcpy(keys->client_key, derived.client_key, SCRAM_KEY_LENGTH);
        memcpy(keys->server_key, secret->server_key, SCRAM_KEY_LENGTH);
        keys->iterations = secret->iterations;
        memcpy(keys->salt, secret->salt, sizeof(keys->salt));
        keys->salt_length = secret->salt_length;
    }
    OPENSSL_cleanse(&derived, sizeof(derived));
    return ok;
}

/* Known to this process alone: whoever could compute the salt of a name could tell which users exist. */
static unsigned char mock_key[SCRAM_KEY_LENGTH];

static void make_mock_key(void)
{
    if (RAND_bytes(mock_key, sizeof(mock_key)) != 1)
        abort();
}

void scram_secret_mock(const char *user, struct scram_secret *secret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    unsigned char digest[SCRAM_KEY_LENGTH];
    pthread_once(&once, make_mock_key);
    *secret = (struct scram_secret){.iterations = ITERATIONS, .salt_length = SALT_LENGTH};
    if (!hmac(mock_key, user, strlen(user), digest) ||
        !hmac(mock_key, digest, sizeof(digest), secret->stored_key) ||
        !hmac(mock_key, secret->stored_key, SCRAM_KEY_LENGTH, secret->server_key))
        abort();
    memcpy(secret->salt, digest, SALT_LENGTH);
}

/* ---- channel binding ---- */

/* What ties an exchange to its TLS connection: the hash of the server's certificate. */
struct binding {
    unsigned char data[SCRAM_BINDING_MAX];
    size_t length; /* 0: there is none */
};

static void set_binding(struct binding *binding, const unsigned char *data, size_t len)
{
    binding->length = len <= SCRAM_BINDING_MAX ? len : 0;
    memcpy(binding->data, data, binding->length);
}

/* "c=" and in base64 the header, so that the proof covers it, with the data it promises. */
static void append_binding(struct buffer *out, const char *header, const struct binding *binding)
{
    unsigned char raw[sizeof GS2_BOUND + SCRAM_BINDING_MAX];
    size_t len = strlen(header);
    memcpy(raw, header, len);
    if (strcmp(header, GS2_BOUND) == 0) {
        memcpy(raw + len, binding->data, binding->length);
        len += binding->length;
    }
    append_string(out, "c=");
    append_base64(out, raw, len);
}

/* ---- server role ---- */

enum server_state {
    SERVER_FIRST, /* waits for client-first-message */
    SERVER_FINAL, /* has sent its nonce, waits for client-final-message */
    SERVER_PASSED,
    SERVER_OVER /* failed; whatever comes now is refused */
};

struct scram_server {
    enum server_state state;
    struct scram_secret secret;
    bool doomed;
    struct binding binding;      /* length 0: SCRAM-SHA-256-PLUS is not offered */
    bool plus;                   /* the client chose it */
    const char *header;          /* its gs2 header: one of GS2_* */
    const char *problem;         /* what is wrong, where it is more than a malformed message */
    struct buffer nonce;         /* the client's and ours */
    struct buffer authenticated; /* AuthMessage so far */
    unsigned char client_key[SCRAM_KEY_LENGTH];
};

struct scram_server *scram_server_new(const struct scram_secret *secret, bool doomed)
{
    struct scram_server *server = mem_alloc(sizeof(*server));
    server->secret = *secret;
    server->doomed = doomed;
    return server;
}

void scram_server_free(struct scram_server *server)
{
    if (!server)
        return;
    release(&server->nonce);
    release(&server->authenticated);
    OPENSSL_cleanse(server, sizeof(*server));
    free(server);
}

void scram_server_bind(struct scram_server *server, const unsigned char *data, size_t len)
{
    set_binding(&server->binding, data, len);
}

void scram_server_choose(struct scram_server *server, bool plus)
{
    server->plus = plus && server->binding.length;
}

const char *scram_server_problem(const struct scram_server *server)
{
    return server->problem;
}

/*
 * gs2-header: the binding flag and an authorization identity, which Postgres takes none of either. A
 * client that could bind but thinks we do not offer it ("y") was lied to on the way: somebody took the
 * better mechanism off our list.
 */
static bool take_gs2_header(struct scram_server *server, struct text *rest)
{
    struct text flag, identity;
    if (!take_until(rest, ',', &flag) || !take_until(rest, ',', &identity) || identity.len)
        return false;
    if (text_is(flag, "p=tls-server-end-point") && server->plus)
        server->header = GS2_BOUND;
    else if (text_is(flag, "n") && !server->plus)
        server->header = GS2_NONE;
    else if (text_is(flag, "y") && !server->plus && !server->binding.length)
        server->header = GS2_COULD;
    else if (text_is(flag, "y") && !server->plus)
        server->problem = "the client supports SCRAM channel binding but thinks the server does "
                          "not; however, this server does support channel binding";
    else if (flag.len > 2 && memcmp(flag.at, "p=", 2) == 0 && server->plus)
        server->problem = "unsupported SCRAM channel-binding type: tls-server-end-point is the "
                          "only one";
    return server->header != NULL;
}

static enum scram_result server_first(struct scram_server *server, struct text message,
                                      struct buffer *reply)
{
    struct text bare, rest, user, nonce;
    if (!take_gs2_header(server, &message))
        return SCRAM_MALFORMED;
    rest = bare = message;
    /* The name is ignored: the startup packet has it. A mandatory extension ("m=") fails here. */
    if (!take_attribute(&rest, 'n', &user) || !take_attribute(&rest, 'r', &nonce) ||
        !is_nonce(nonce) || !skip_extensions(&rest, '\0'))
        return SCRAM_MALFORMED;
    char ours[NONCE_TEXT + 1];
    if (!make_nonce(ours))
        return SCRAM_FAILED;
    append_text(&server->nonce, nonce);
    append_string(&server->nonce, ours);

    struct buffer first = {0};
    append_string(&first, "r=");
    buffer_append(&first, buffer_head(&server->nonce), buffer_length(&server->nonce));
    append_string(&first, ",s=");
    append_base64(&first, server->secret.salt, (size_t)server->secret.salt_length);
    buffer_printf(&first, ",i=%d", server->secret.iterations);

    append_text(&server->authenticated, bare);
    append_string(&server->authenticated, ",");
    buffer_append(&server->authenticated, buffer_head(&first), buffer_length(&first));
    buffer_append(reply, buffer_head(&first), buffer_length(&first));
    release(&first);
    return SCRAM_CONTINUE;
}

/* The header is repeated, with the data where it is bound: as we see both. */
static bool is_binding(struct scram_server *server, struct text binding)
{
    struct buffer expected = {0};
    append_binding(&expected, server->header, &server->binding);
    bool ok = binding.len + 2 == buffer_length(&expected) &&
              CRYPTO_memcmp(buffer_head(&expected) + 2, binding.at, binding.len) == 0;
    buffer_release(&expected);
    if (!ok && server->plus)
        server->problem = "SCRAM channel binding check failed";
    return ok;
}

static bool is_whole_nonce(const struct scram_server *server, struct text nonce)
{
    return nonce.len == buffer_length(&server->nonce) &&
           memcmp(nonce.at, buffer_head(&server->nonce), nonce.len) == 0;
}

/* Recovers the client's key from its proof; true if it is the one whose hash is stored. */
static bool check_proof(struct scram_server *server, const unsigned char proof[SCRAM_KEY_LENGTH])
{
    unsigned char signature[SCRAM_KEY_LENGTH], stored_key[SCRAM_KEY_LENGTH];
    const struct buffer *authenticated = &server->authenticated;
    if (!hmac(server->secret.stored_key, buffer_head(authenticated), buffer_length(authenticated),
              signature))
        return false;
    xor_key(server->client_key, proof, signature);
    return hash(server->client_key, stored_key) && same(stored_key, server->secret.stored_key) &&
           !server->doomed;
}

static enum scram_result server_final(struct scram_server *server, struct text message,
                                      struct buffer *reply)
{
    struct text rest = message, binding, nonce, proof;
    if (!take_attribute(&rest, 'c', &binding) || !is_binding(server, binding) ||
        !take_attribute(&rest, 'r', &nonce) || !is_whole_nonce(server, nonce) ||
        !skip_extensions(&rest, 'p'))
        return SCRAM_MALFORMED;
    struct text covered = {message.at, (size_t)(rest.at - message.at)};
    unsigned char proof_bytes[SCRAM_KEY_LENGTH], signature[SCRAM_KEY_LENGTH];
    if (!take_attribute(&rest, 'p', &proof) || rest.len || message.at[message.len - 1] == ',' ||
        !decode_key(proof, proof_bytes))
        return SCRAM_MALFORMED;
    covered.len--; /* the comma before the proof */
    append_string(&server->authenticated, ",");
    append_text(&server->authenticated, covered);
    if (!check_proof(server, proof_bytes) ||
        !hmac(server->secret.server_key, buffer_head(&server->authenticated),
              buffer_length(&server->authenticated), signature))
        return SCRAM_FAILED;
    append_string(reply, "v=");
    append_base64(reply, signature, sizeof(signature));
    return SCRAM_OK;
}

enum scram_result scram_server_step(struct scram_server *server, const char *message, size_t len,
                                    struct buffer *reply)
{
    enum scram_result result = SCRAM_MALFORMED;
    struct text text = {message, len};
    if (is_message(message, len) && server->state == SERVER_FIRST)
        result = server_first(server, text, reply);
    else if (is_message(message, len) && server->state == SERVER_FINAL)
        result = server_final(server, text, reply);
    server->state = result == SCRAM_CONTINUE ? SERVER_FINAL
                    : result == SCRAM_OK     ? SERVER_PASSED
                                             : SERVER_OVER;
    return result;
}

void scram_server_keys(const struct scram_server *server, struct scram_keys *keys)
{
    *keys = (struct scram_keys){0};
    if (server->state != SERVER_PASSED)
        return;
    keys->present = true;
    memcpy(keys->client_key, server->client_key, SCRAM_KEY_LENGTH);
    memcpy(keys->server_key, server->secret.server_key, SCRAM_KEY_LENGTH);
    keys->iterations = server->secret.iterations;
    memcpy(keys->salt, server->secret.salt, sizeof(keys->salt));
    keys->salt_length = server->secret.salt_length;
}

/* ---- client role ---- */

enum client_state {
    CLIENT_START,
    CLIENT_FIRST_SENT,
    CLIENT_FINAL_SENT,
    CLIENT_OVER /* verified or failed */
};

struct scram_client {
    enum client_state state;
    char *password; /* owned; NULL: log in with keys */
    struct scram_keys keys;
    char nonce[NONCE_TEXT + 1];
    const char *header; /* our gs2 header: one of GS2_* */
    bool verified;      /* the server has proven itself */
    struct binding binding;
    unsigned char expected[SCRAM_KEY_LENGTH]; /* the server's signature */
};

struct scram_client *scram_client_new(const char *password, const struct scram_keys *keys)
{
    struct scram_client *client = mem_alloc(sizeof(*client));
    client->header = GS2_NONE;
    if (password)
        client->password = mem_strdup(password);
    else if (keys)
        client->keys = *keys;
    return client;
}

void scram_client_free(struct scram_client *client)
{
    if (!client)
        return;
    if (client->password)
        OPENSSL_cleanse(client->password, strlen(client->password));
    free(client->password);
    OPENSSL_cleanse(client, sizeof(*client));
    free(client);
}

void scram_client_bind(struct scram_client *client, const unsigned char *data, size_t len,
                       bool offered)
{
    set_binding(&client->binding, data, len);
    client->header = offered ? GS2_BOUND : GS2_COULD;
}

/* Without randomness nothing is sent and the exchange is over. */
void scram_client_first(struct scram_client *client, struct buffer *out)
{
    if (client->state != CLIENT_START || !make_nonce(client->nonce)) {
        client->state = CLIENT_OVER;
        return;
    }
    client->state = CLIENT_FIRST_SENT;
    buffer_printf(out, "%sn=,r=%s", client->header, client->nonce);
}

struct server_first {
    struct text nonce;
    unsigned char salt[MESSAGE_MAX];
    int salt_length;
    int iterations;
};

static bool parse_server_first(const struct scram_client *client, struct text rest,
                               struct server_first *first)
{
    struct text salt, iterations;
    if (!take_attribute(&rest, 'r', &first->nonce) || !take_attribute(&rest, 's', &salt) ||
        !take_attribute(&rest, 'i', &iterations) || !skip_extensions(&rest, '\0'))
        return false;
    first->salt_length = decode_base64(salt, first->salt, sizeof(first->salt));
    first->iterations = parse_iterations(iterations);
    return first->salt_length > 0 && first->iterations > 0 && is_nonce(first->nonce) &&
           first->nonce.len > NONCE_TEXT && memcmp(first->nonce.at, client->nonce, NONCE_TEXT) == 0;
}

/* The keys to log in with: derived from the password, or those we were given if they were made for
 * this salt. */
static bool find_keys(const struct scram_client *client, const struct server_first *first,
                      struct derived *keys)
{
    if (client->password)
        return first->iterations <= ITERATIONS_MAX &&
               derive_keys(client->password, first->salt, (size_t)first->salt_length,
                           first->iterations, keys);
    const struct scram_keys *given = &client->keys;
    if (!given->present || given->iterations != first->iterations ||
        given->salt_length != first->salt_length ||
        memcmp(given->salt, first->salt, (size_t)first->salt_length) != 0)
        return false;
    memcpy(keys->client_key, given->client_key, SCRAM_KEY_LENGTH);
    memcpy(keys->server_key, given->server_key, SCRAM_KEY_LENGTH);
    return true;
}

static bool sign(struct scram_client *client, const struct derived *keys,
                 const struct buffer *authenticated, unsigned char proof[SCRAM_KEY_LENGTH])
{
    unsigned char stored_key[SCRAM_KEY_LENGTH], signature[SCRAM_KEY_LENGTH];
    const char *message = buffer_head(authenticated);
    size_t len = buffer_length(authenticated);
    if (!hash(keys->client_key, stored_key) || !hmac(stored_key, message, len, signature) ||
        !hmac(keys->server_key, message, len, client->expected))
        return false;
    xor_key(proof, keys->client_key, signature);
    return true;
}

static void append_without_proof(const struct scram_client *client, struct buffer *out,
                                 struct text nonce)
{
    append_binding(out, client->header, &client->binding);
    append_string(out, ",r=");
    append_text(out, nonce);
}

static bool client_final(struct scram_client *client, struct text message, struct buffer *out)
{
    struct server_first first;
    struct derived keys;
    unsigned char proof[SCRAM_KEY_LENGTH];
    if (!parse_server_first(client, message, &first) || !find_keys(client, &first, &keys))
        return false;
    struct buffer authenticated = {0};
    buffer_printf(&authenticated, "n=,r=%s,", client->nonce);
    append_text(&authenticated, message);
    append_string(&authenticated, ",");
    append_without_proof(client, &authenticated, first.nonce);
    bool ok = sign(client, &keys, &authenticated, proof);
    release(&authenticated);
    OPENSSL_cleanse(&keys, sizeof(keys));
    if (!ok)
        return false;
    append_without_proof(client, out, first.nonce);
    append_string(out, ",p=");
    append_base64(out, proof, sizeof(proof));
    return true;
}

bool scram_client_final(struct scram_client *client, const char *message, size_t len,
                        struct buffer *out)
{
    bool ok = client->state == CLIENT_FIRST_SENT && is_message(message, len) &&
              client_final(client, (struct text){message, len}, out);
    client->state = ok ? CLIENT_FINAL_SENT : CLIENT_OVER;
    return ok;
}

static bool client_verify(const struct scram_client *client, struct text rest)
{
    struct text verifier;
    unsigned char signature[SCRAM_KEY_LENGTH];
    return take_attribute(&rest, 'v', &verifier) && skip_extensions(&rest, '\0') &&
           decode_key(verifier, signature) && same(signature, client->expected);
}

bool scram_client_verify(struct scram_client *client, const char *message, size_t len)
{
    bool ok = client->state == CLIENT_FINAL_SENT && is_message(message, len) &&
              client_verify(client, (struct text){message, len});
    client->state = CLIENT_OVER;
    client->verified = ok;
    return ok;
}

bool scram_client_is_bound(const struct scram_client *client)
{
    return client->verified && strcmp(client->header, GS2_BOUND) == 0;
}
