/* tls_context.c: reads certificates and keys, and makes OpenSSL contexts of them and the settings. */
#include "proxy/tls_context.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/tls.h"

#define WARN_BEFORE_S (14 * 86400)

/* The last session with one peer. */
struct kept_session {
    struct kept_session *next;
    char *peer;
    SSL_SESSION *session;
};

struct tls_context {
    atomic_int references;
    SSL_CTX *ssl;
    enum server_tls_mode mode;  /* for servers */
    pthread_mutex_t lock;       /* guards the next */
    struct kept_session *first; /* for servers: one of each */
};

/* Shards with equal settings share a context. */
struct server_context {
    const struct server_tls_config *config; /* into the configuration */
    struct tls_context *context;
};

struct tls_setup {
    atomic_int references;
    struct tls_context *client;
    struct server_context *servers;
    int nservers;
    struct tls_certificate *certificates;
    int ncertificates;
};

/* Where a context is being made: what to say when it cannot be. */
struct making {
    SSL_CTX *ssl;
    const struct tls_config *config;
    const char *group; /* "client_tls", "server_tls" */
    char *error;
    size_t size;
};

const char *tls_error_text(void)
{
    unsigned long code = ERR_peek_error(); /* the later ones say where, not what */
    if (ERR_SYSTEM_ERROR(code))
        return strerror(ERR_GET_REASON(code));
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    return text ? text : "unknown reason";
}

/* ---- files ---- */

static bool fail(const struct making *making, const char *name, const char *value, const char *why)
{
    snprintf(making->error, making->size, "found %s.%s = \"%s\": %s", making->group, name, value,
             why);
    ERR_clear_error();
    return false;
}

/* As Postgres: of us and for us alone, or of root and for a group of ours. */
static const char *key_file_problem(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return strerror(errno);
    if (!S_ISREG(info.st_mode))
        return "not a regular file";
    if (info.st_uid != geteuid() && info.st_uid != 0)
        return "the private key must belong to the user that pgshunt runs as, or to root";
    if (info.st_uid == geteuid() && (info.st_mode & (S_IRWXG | S_IRWXO)))
        return "the private key is accessible to others: chmod 600";
    if (info.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO))
        return "the private key is accessible to others: chmod 640";
    return NULL;
}

/* Nobody is there to type one. */
static int no_passphrase(char *out, int size, int writing, void *arg)
{
    (void)writing;
    *(bool *)arg = true;
    if (size > 0)
        out[0] = '\0';
    return 0;
}

static bool load_key(const struct making *making)
{
    const char *path = making->config->key_file, *problem = key_file_problem(path);
    bool wants_passphrase = false;
    if (problem)
        return fail(making, "key_file", path, problem);
    SSL_CTX_set_default_passwd_cb(making->ssl, no_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(making->ssl, &wants_passphrase);
    bool loaded = SSL_CTX_use_PrivateKey_file(making->ssl, path, SSL_FILETYPE_PEM) == 1;
    SSL_CTX_set_default_passwd_cb_userdata(making->ssl, NULL);
    SSL_CTX_set_default_passwd_cb(making->ssl, NULL);
    if (wants_passphrase)
        return fail(making, "key_file", path, "the private key is protected by a passphrase");
    if (!loaded)
        return fail(making, "key_file", path, tls_error_text());
    if (SSL_CTX_check_private_key(making->ssl) != 1)
        return fail(making, "key_file", path, "the private key does not belong to cert_file");
    return true;
}

static bool load_certificate(const struct making *making)
{
    const char *path = making->config->cert_file;
    if (!path[0])
        return true;
    if (access(path, R_OK) != 0)
        return fail(making, "cert_file", path, strerror(errno));
    if (SSL_CTX_use_certificate_chain_file(making->ssl, path) != 1)
        return fail(making, "cert_file", path, tls_error_text());
    return load_key(making);
}

/* ---- contexts ---- */

static int openssl_version(enum tls_version version)
{
    return version == TLS_VERSION_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
}

static bool set_protocol(const struct making *making)
{
    const struct tls_config *config = making->config;
    SSL_CTX *ssl = making->ssl;
    SSL_CTX_set_min_proto_version(ssl, openssl_version(config->min_version));
    SSL_CTX_set_max_proto_version(ssl, openssl_version(config->max_version));
    SSL_CTX_set_options(ssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    /* An idle connection keeps no record buffers. */
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (config->ciphers[0] && SSL_CTX_set_cipher_list(ssl, config->ciphers) != 1)
        return fail(making, "ciphers", config->ciphers, tls_error_text());
    if (config->ciphersuites[0] && SSL_CTX_set_ciphersuites(ssl, config->ciphersuites) != 1)
        return fail(making, "ciphersuites", config->ciphersuites, tls_error_text());
    return true;
}

static bool load_ca(const struct making *making)
{
    const char *path = making->config->ca_file;
    if (!path[0])
        return true;
    if (access(path, R_OK) != 0)
        return fail(making, "ca_file", path, strerror(errno));
    if (SSL_CTX_load_verify_locations(making->ssl, path, NULL) != 1)
        return fail(making, "ca_file", path, tls_error_text());
    return true;
}

static struct tls_context *new_context(const struct making *making)
{
    struct tls_context *context = mem_alloc(sizeof *context);
    atomic_init(&context->references, 1);
    pthread_mutex_init(&context->lock, NULL);
    context->ssl = making->ssl;
    return context;
}

static bool begin(struct making *making, const SSL_METHOD *method)
{
    ERR_clear_error();
    making->ssl = SSL_CTX_new(method);
    if (!making->ssl)
        snprintf(making->error, making->size, "cannot set up TLS: %s", tls_error_text());
    return making->ssl != NULL;
}

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length,
                       const unsigned char *offered, unsigned offered_length, void *arg)
{
    unsigned char *chosen;
    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, out_length, TLS_ALPN, TLS_ALPN_LENGTH, offered,
                              offered_length) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* A client without a certificate is refused later, with words that it can show to its user. */
static bool ask_for_certificates(const struct making *making)
{
    const char *path = making->config->ca_file;
    if (!path[0])
        return true;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (!names)
        return fail(making, "ca_file", path, tls_error_text());
    SSL_CTX_set_client_CA_list(making->ssl, names);
    SSL_CTX_set_verify(making->ssl, SSL_VERIFY_PEER, NULL);
    return true;
}

/* Sessions are resumed by tickets, which the clients keep: none is stored here. */
static bool set_tickets(const struct making *making)
{
    static const unsigned char name[] = "pgshunt";
    SSL_CTX_set_session_cache_mode(making->ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(making->ssl, 1);
    SSL_CTX_set_session_id_context(making->ssl, name, sizeof name - 1);
    return true;
}

static struct tls_context *make_client(const struct config *config, char *error, size_t size)
{
    struct making making = {NULL, &config->client_tls, "client_tls", error, size};
    if (!begin(&making, TLS_server_method()))
        return NULL;
    SSL_CTX_set_alpn_select_cb(making.ssl, select_alpn, NULL);
    SSL_CTX_set_dh_auto(making.ssl, 1);
    SSL_CTX_set_options(making.ssl, SSL_OP_CIPHER_SERVER_PREFERENCE);
    if (set_protocol(&making) && load_certificate(&making) && load_ca(&making) &&
        ask_for_certificates(&making) && set_tickets(&making))
        return new_context(&making);
    SSL_CTX_free(making.ssl);
    return NULL;
}

static struct tls_context *make_server(const struct server_tls_config *config, char *error,
                                       size_t size)
{
    struct making making = {NULL, &config->tls, "server_tls", error, size};
    if (!begin(&making, TLS_client_method()))
        return NULL;
    SSL_CTX_set_alpn_protos(making.ssl, TLS_ALPN, TLS_ALPN_LENGTH);
    if (config->mode >= SERVER_TLS_VERIFY_CA)
        SSL_CTX_set_verify(making.ssl, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(making.ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(making.ssl, tls_new_session);
    if (set_protocol(&making) && load_certificate(&making) && load_ca(&making)) {
        struct tls_context *context = new_context(&making);
        context->mode = config->mode;
        return context;
    }
    SSL_CTX_free(making.ssl);
    return NULL;
}

struct tls_context *tls_context_ref(struct tls_context *context)
{
    atomic_fetch_add(&context->references, 1);
    return context;
}

void tls_context_unref(struct tls_context *context)
{
    if (!context || atomic_fetch_sub(&context->references, 1) != 1)
        return;
    while (context->first) {
        struct kept_session *kept = context->first;
        context->first = kept->next;
        SSL_SESSION_free(kept->session);
        free(kept->peer);
        free(kept);
    }
    SSL_CTX_free(context->ssl);
    pthread_mutex_destroy(&context->lock);
    free(context);
}

SSL *tls_context_new_ssl(struct tls_context *context)
{
    return SSL_new(context->ssl);
}

bool tls_context_may_be_plain(const struct tls_context *context)
{
    return context->mode <= SERVER_TLS_PREFER;
}

bool tls_context_checks_host(const struct tls_context *context)
{
    return context->mode == SERVER_TLS_VERIFY_FULL;
}

/* ---- sessions with servers ---- */

static struct kept_session *find_session(const struct tls_context *context, const char *peer)
{
    struct kept_session *kept = context->first;
    while (kept && strcmp(kept->peer, peer) != 0)
        kept = kept->next;
    return kept;
}

SSL_SESSION *tls_context_session(struct tls_context *context, const char *peer)
{
    pthread_mutex_lock(&context->lock);
    struct kept_session *kept = find_session(context, peer);
    SSL_SESSION *session = kept ? kept->session : NULL;
    if (session)
        SSL_SESSION_up_ref(session);
    pthread_mutex_unlock(&context->lock);
    return session;
}

void tls_context_keep_session(struct tls_context *context, const char *peer, SSL_SESSION *session)
{
    pthread_mutex_lock(&context->lock);
    struct kept_session *kept = find_session(context, peer);
    if (!kept) {
        kept = mem_alloc(sizeof *kept);
        kept->peer = mem_strdup(peer);
        kept->next = context->first;
        context->first = kept;
    }
    SSL_SESSION *previous = kept->session;
    kept->session = session;
    pthread_mutex_unlock(&context->lock);
    SSL_SESSION_free(previous);
}

/* ---- setups ---- */

static int64_t expiry(SSL_CTX *ssl)
{
    struct tm tm = {0};
    X509 *certificate = SSL_CTX_get0_certificate(ssl);
    if (!certificate || ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm) != 1)
        return 0;
    return (int64_t)timegm(&tm);
}

static void note_certificate(struct tls_setup *setup, const struct tls_context *context,
                             const char *file, const char *side)
{
    for (int i = 0; i < setup->ncertificates; i++)
        if (strcmp(setup->certificates[i].file, file) == 0 &&
            strcmp(setup->certificates[i].side, side) == 0)
            return;
    if (!file[0])
        return;
    size_t size = sizeof *setup->certificates * (size_t)(setup->ncertificates + 1);
    setup->certificates = mem_realloc(setup->certificates, size);
    setup->certificates[setup->ncertificates++] =
        (struct tls_certificate){mem_strdup(file), side, expiry(context->ssl)};
}

static bool same_files(const struct tls_config *a, const struct tls_config *b)
{
    return strcmp(a->ca_file, b->ca_file) == 0 && strcmp(a->cert_file, b->cert_file) == 0 &&
           strcmp(a->key_file, b->key_file) == 0;
}

/* What else settings can differ in between shards, they do not: see config_tls.c. */
static struct tls_context *like(const struct tls_setup *setup,
                                const struct server_tls_config *config)
{
    for (int i = 0; i < setup->nservers; i++) {
        const struct server_context *known = &setup->servers[i];
        if (known->context && known->config->mode == config->mode &&
            same_files(&known->config->tls, &config->tls))
            return tls_context_ref(known->context);
    }
    return NULL;
}

static bool add_server(struct tls_setup *setup, const struct server_tls_config *config, char *error,
                       size_t size)
{
    struct tls_context *context = NULL;
    if (config->mode != SERVER_TLS_DISABLE) {
        context = like(setup, config);
        if (!context)
            context = make_server(config, error, size);
        if (!context)
            return false;
        note_certificate(setup, context, config->tls.cert_file, "server");
    }
    setup->servers[setup->nservers++] = (struct server_context){config, context};
    return true;
}

static bool add_servers(struct tls_setup *setup, const struct config *config, char *error,
                        size_t size)
{
    int count = 1;
    for (int i = 0; i < config->ndatabases; i++)
        count += config->databases[i].nshards;
    setup->servers = mem_alloc(sizeof *setup->servers * (size_t)count);
    if (!add_server(setup, &config->server_tls, error, size))
        return false;
    for (int i = 0; i < config->ndatabases; i++)
        for (int j = 0; j < config->databases[i].nshards; j++)
            if (!add_server(setup, &config->databases[i].shards[j].server_tls, error, size))
                return false;
    return true;
}

static bool add_client(struct tls_setup *setup, const struct config *config, char *error,
                       size_t size)
{
    if (config->client_tls_mode == CLIENT_TLS_DISABLE)
        return true;
    setup->client = make_client(config, error, size);
    if (setup->client)
        note_certificate(setup, setup->client, config->client_tls.cert_file, "client");
    return setup->client != NULL;
}

struct tls_setup *tls_setup_new(const struct config *config, char *error, size_t size)
{
    struct tls_setup *setup = mem_alloc(sizeof *setup);
    atomic_init(&setup->references, 1);
    if (add_client(setup, config, error, size) && add_servers(setup, config, error, size))
        return setup;
    tls_setup_unref(setup);
    return NULL;
}

struct tls_setup *tls_setup_ref(struct tls_setup *setup)
{
    atomic_fetch_add(&setup->references, 1);
    return setup;
}

void tls_setup_unref(struct tls_setup *setup)
{
    if (!setup || atomic_fetch_sub(&setup->references, 1) != 1)
        return;
    tls_context_unref(setup->client);
    for (int i = 0; i < setup->nservers; i++)
        tls_context_unref(setup->servers[i].context);
    free(setup->servers);
    for (int i = 0; i < setup->ncertificates; i++)
        free((char *)setup->certificates[i].file);
    free(setup->certificates);
    free(setup);
}

struct tls_context *tls_setup_client(const struct tls_setup *setup)
{
    return setup ? setup->client : NULL;
}

struct tls_context *tls_setup_server(const struct tls_setup *setup,
                                     const struct server_tls_config *config)
{
    for (int i = 0; setup && i < setup->nservers; i++)
        if (setup->servers[i].config == config)
            return setup->servers[i].context;
    return NULL;
}

int tls_setup_certificates(const struct tls_setup *setup, const struct tls_certificate **list)
{
    *list = setup ? setup->certificates : NULL;
    return setup ? setup->ncertificates : 0;
}

void tls_setup_warn(const struct tls_setup *setup)
{
    int64_t now = (int64_t)time(NULL);
    for (int i = 0; setup && i < setup->ncertificates; i++) {
        int64_t left = setup->certificates[i].expires - now;
        if (left < WARN_BEFORE_S)
            log_event(LOG_WARNING,
                      left < 0 ? "certificate has expired" : "certificate expires soon",
                      LOG_S("file", setup->certificates[i].file),
                      LOG_I("days_left", left < 0 ? 0 : left / 86400),
                      LOG_S("hint", "replace the file, then reload"));
    }
}
