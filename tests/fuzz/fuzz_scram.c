/* fuzz_scram.c: both roles of SCRAM against any messages, secrets and md5 input.
 *
 * The input is one to three parts, separated by newlines; the byte 1 in a part stands for the nonce of
 * this exchange, which no fuzzer can guess. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/scram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NONCE_BYTE 1
#define SECRET                                                                                     \
    "SCRAM-SHA-256$1:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"       \
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

struct part {
    const char *at;
    size_t len;
};

static void expect(bool truth)
{
    if (!truth)
        abort();
}

static struct part next_part(struct part *rest)
{
    const char *stop = rest->len ? memchr(rest->at, '\n', rest->len) : NULL;
    struct part part = {rest->at, stop ? (size_t)(stop - rest->at) : rest->len};
    size_t taken = part.len + (stop ? 1 : 0);
    *rest = (struct part){rest->at + taken, rest->len - taken};
    return part;
}

/* The nonce in "...r=NONCE,..." or "...r=NONCE". */
static struct part find_nonce(const struct buffer *message)
{
    const char *head = buffer_head(message);
    const char *nonce = head ? memmem(head, buffer_length(message), "r=", 2) : NULL;
    if (!nonce)
        return (struct part){"", 0};
    size_t left = buffer_length(message) - (size_t)(nonce + 2 - head);
    const char *comma = memchr(nonce + 2, ',', left);
    return (struct part){nonce + 2, comma ? (size_t)(comma - nonce - 2) : left};
}

/* The part with the nonce put in, in memory of exactly its size. */
static struct part expand(struct part part, struct part nonce)
{
    struct buffer out = {0};
    for (size_t i = 0; i < part.len; i++) {
        if (part.at[i] == NONCE_BYTE)
            buffer_append(&out, nonce.at, nonce.len);
        else
            buffer_append(&out, part.at + i, 1);
    }
    size_t len = buffer_length(&out);
    char *copy = malloc(len + !len);
    expect(copy != NULL);
    if (len)
        memcpy(copy, buffer_head(&out), len);
    buffer_release(&out);
    return (struct part){copy, len};
}

static enum scram_result step(struct scram_server *server, struct part part, struct part nonce,
                              struct buffer *reply)
{
    struct part message = expand(part, nonce);
    enum scram_result result = scram_server_step(server, message.at, message.len, reply);
    free((char *)message.at);
    return result;
}

/* `plus`: on TLS, with the mechanism that is bound to it. */
static void fuzz_server(struct part input, bool plus)
{
    struct scram_secret secret;
    struct scram_keys keys;
    struct buffer first = {0}, last = {0};
    expect(scram_secret_parse(SECRET, &secret));
    struct scram_server *server = scram_server_new(&secret, false);
    if (plus)
        scram_server_bind(server, (const unsigned char *)"hash", 4);
    scram_server_choose(server, plus);
    enum scram_result result = step(server, next_part(&input), (struct part){"n", 1}, &first);
    expect(result == SCRAM_CONTINUE || result == SCRAM_MALFORMED);
    if (result == SCRAM_CONTINUE)
        result = step(server, next_part(&input), find_nonce(&first), &last);
    expect(result == SCRAM_MALFORMED || result == SCRAM_FAILED); /* no fuzzer knows the key */
    expect(!buffer_length(&last));
    expect(step(server, next_part(&input), find_nonce(&first), &last) == SCRAM_MALFORMED);
    scram_server_keys(server, &keys);
    expect(!keys.present);
    buffer_release(&first);
    buffer_release(&last);
    scram_server_free(server);
}

static void fuzz_client(struct part input, struct scram_client *client)
{
    struct buffer first = {0}, last = {0};
    scram_client_first(client, &first);
    struct part challenge = expand(next_part(&input), find_nonce(&first));
    bool answered = scram_client_final(client, challenge.at, challenge.len, &last);
    expect(answered == (buffer_length(&last) > 0));
    struct part verdict = expand(next_part(&input), find_nonce(&first));
    expect(!scram_client_verify(client, verdict.at, verdict.len));
    free((char *)challenge.at);
    free((char *)verdict.at);
    buffer_release(&first);
    buffer_release(&last);
    scram_client_free(client);
}

/* A large iteration count is honest work; here it would only make the fuzzer slow. */
static bool is_quick(struct part input)
{
    const char *i = input.len ? memmem(input.at, input.len, "i=", 2) : NULL;
    size_t digits = 0;
    while (i && i + 2 + digits < input.at + input.len && i[2 + digits] >= '0' &&
           i[2 + digits] <= '9')
        digits++;
    return digits < 4;
}

static void fuzz_text(struct part input)
{
    static const unsigned char salt[4] = {1, 2, 3, 4};
    struct scram_secret secret;
    char out[MD5_SECRET_LENGTH + 1];
    char *text = strndup(input.len ? input.at : "", input.len);
    expect(text != NULL);
    if (scram_secret_parse(text, &secret))
        expect(secret.iterations > 0 && secret.salt_length > 0 && secret.salt_length <= 64);
    else
        expect(md5_response(text, "user", salt, out) && strlen(out) == MD5_SECRET_LENGTH);
    scram_secret_mock(text, &secret);
    fuzz_client((struct part){"r=\001x,s=AA==,i=1\nv=", 18}, scram_client_new(text, NULL));
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct scram_keys keys = {.present = true, .iterations = 1, .salt_length = 1};
    struct part input = {size ? (const char *)data : "", size};
    fuzz_server(input, false);
    fuzz_server(input, true);
    fuzz_client(input, scram_client_new(NULL, &keys));
    struct scram_client *bound = scram_client_new(NULL, &keys);
    scram_client_bind(bound, (const unsigned char *)"hash", 4, true);
    fuzz_client(input, bound);
    if (is_quick(input))
        fuzz_client(input, scram_client_new("pencil", NULL));
    fuzz_text(input);
    return 0;
}
