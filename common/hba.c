/* hba.c: the rules of a pg_hba.conf, from its tokens, and which of them fits a visitor. */
#include "hba_internal.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hba_pattern.h"

enum rule_type { RULE_LOCAL, RULE_HOST, RULE_HOSTSSL, RULE_HOSTNOSSL };
enum name_kind {
    NAME_EXACT,
    NAME_ALL,
    NAME_SAMEUSER,
    NAME_REPLICATION,
    NAME_PATTERN,
    NAME_ROLE,
    NAME_SAMEROLE
};

/* Whether something fits a visitor. */
enum fit { FIT_NO, FIT_YES, FIT_TOO_LONG, FIT_NEEDS_ROLES, FIT_NEEDS_HOST };
enum address_kind { ADDRESS_ALL, ADDRESS_BLOCK, ADDRESS_SAMEHOST, ADDRESS_SAMENET, ADDRESS_HOST };

struct name {
    struct name *next;
    enum name_kind kind;
    const char *text;        /* EXACT; ROLE: its name */
    struct pattern *pattern; /* PATTERN */
};

/* An address block; IPv4 uses the first four bytes. */
struct block {
    struct block *next;
    sa_family_t family;
    unsigned char address[16];
    unsigned char mask[16];
};

struct rule {
    struct rule *next;
    struct hba_rule public;
    enum rule_type type;
    struct name *databases;
    struct name *users;
    enum address_kind address;
    struct block block; /* BLOCK */
    const char *host;   /* HOST: a name, or the end of names: ".example.com" */
};

struct hba {
    struct rule *rules;
    struct block *own; /* this machine's addresses, with the masks of their networks */
};

/* One line while it becomes a rule. */
struct parse {
    struct hba_reader *reader;
    const struct hba_line *line;
    struct hba_field *rest;
};

static const struct {
    const char *name;
    enum hba_method method;
} methods[] = {
    {"trust", HBA_TRUST}, {"reject", HBA_REJECT},       {"password", HBA_PASSWORD},
    {"md5", HBA_MD5},     {"scram-sha-256", HBA_SCRAM}, {"cert", HBA_CERT},
    {"peer", HBA_PEER},   {"ident", HBA_PEER}, /* on local lines, as in Postgres */
};
#define METHODS ((int)(sizeof methods / sizeof methods[0]))
#define METHOD_NAMES "trust, reject, password, md5, scram-sha-256, cert, peer"

const char *hba_method_name(enum hba_method method)
{
    for (int i = 0; i < METHODS; i++)
        if (methods[i].method == method)
            return methods[i].name;
    return "?";
}

#define REFUSE(parse, ...)                                                                         \
    hba_refuse((parse)->reader, (parse)->line->file, (parse)->line->line, __VA_ARGS__)

/* ---- fields ---- */

static bool is_keyword(const struct hba_token *token, const char *word)
{
    return !token->quoted && strcmp(token->text, word) == 0;
}

static bool next_field(struct parse *parse, const char *what, struct hba_field **field)
{
    *field = parse->rest;
    if (!*field)
        return REFUSE(parse,
                      "found the end of the line before %s; allowed: TYPE DATABASE USER "
                      "ADDRESS METHOD (no ADDRESS with local)",
                      what);
    parse->rest = parse->rest->next;
    return true;
}

/* A field of exactly one token. */
static bool next_word(struct parse *parse, const char *what, const struct hba_token **token)
{
    struct hba_field *field;
    if (!next_field(parse, what, &field))
        return false;
    *token = field->tokens;
    if (field->tokens->next)
        return REFUSE(parse, "found several values for %s, beginning with \"%.60s\"; allowed: one",
                      what, field->tokens->text);
    return true;
}

static bool parse_type(struct parse *parse, enum rule_type *type)
{
    const struct hba_token *word;
    if (!next_word(parse, "a type", &word))
        return false;
    if (is_keyword(word, "local"))
        *type = RULE_LOCAL;
    else if (is_keyword(word, "host") || is_keyword(word, "hostnogssenc"))
        *type = RULE_HOST; /* no connection here has GSS encryption */
    else if (is_keyword(word, "hostssl"))
        *type = RULE_HOSTSSL;
    else if (is_keyword(word, "hostnossl"))
        *type = RULE_HOSTNOSSL;
    else if (is_keyword(word, "hostgssenc"))
        return REFUSE(parse, "found hostgssenc, but pgshunt has no GSS encryption; allowed: local, "
                             "host, hostssl, hostnossl, hostnogssenc");
    else
        return REFUSE(parse,
                      "found type \"%.60s\"; allowed: local, host, hostssl, hostnossl, "
                      "hostnogssenc",
                      word->text);
    return true;
}

/* For Postgres this is a database's name, which hardly anyone means. */
static bool refuse_role(struct parse *parse, const struct hba_token *token)
{
    return REFUSE(parse,
                  "found database \"%.60s\"; allowed: names, all, sameuser, samerole, replication, "
                  "/PATTERN, @FILE",
                  token->text);
}

/* In quotes, too, as in Postgres: a comma needs them. */
static bool parse_pattern(struct parse *parse, const char *what, struct name *name)
{
    char why[200];
    name->kind = NAME_PATTERN;
    name->pattern = pattern_compile(parse->reader->arena, name->text + 1, why, sizeof why);
    return name->pattern || REFUSE(parse, "found %s \"%.80s\" (%s); allowed: a regular expression",
                                   what, name->text, why);
}

static bool parse_names(struct parse *parse, const char *what, bool databases, struct name **names)
{
    struct hba_field *field;
    if (!next_field(parse, what, &field) || !hba_expand_names(parse->reader, parse->line, field))
        return false;
    for (const struct hba_token *token = field->tokens; token; token = token->next) {
        struct name *name = arena_alloc(parse->reader->arena, sizeof *name);
        bool is_role = !token->quoted && token->text[0] == '+';
        if (is_role && databases)
            return refuse_role(parse, token);
        *name =
            (struct name){.kind = is_role ? NAME_ROLE : NAME_EXACT, .text = token->text + is_role};
        if (is_keyword(token, "all"))
            name->kind = NAME_ALL;
        else if (databases && (is_keyword(token, "samerole") || is_keyword(token, "samegroup")))
            name->kind = NAME_SAMEROLE;
        else if (databases && is_keyword(token, "sameuser"))
            name->kind = NAME_SAMEUSER;
        else if (databases && is_keyword(token, "replication"))
            name->kind = NAME_REPLICATION;
        else if (token->text[0] == '/' && !parse_pattern(parse, what, name))
            return false;
        *names = name;
        names = &name->next;
    }
    return true;
}

/* ---- addresses ---- */

static bool parse_ip(const char *text, struct block *block)
{
    if (inet_pton(AF_INET, text, block->address) == 1)
        block->family = AF_INET;
    else if (inet_pton(AF_INET6, text, block->address) == 1)
        block->family = AF_INET6;
    else
        return false;
    return true;
}

static int address_bits(const struct block *block)
{
    return block->family == AF_INET ? 32 : 128;
}

static void set_mask(struct block *block, int bits)
{
    memset(block->mask, 0, sizeof block->mask);
    for (int i = 0; i < bits; i++)
        block->mask[i / 8] |= (unsigned char)(0x80 >> i % 8);
}

/* "10.0.0.0/8" */
static bool parse_cidr(struct parse *parse, const char *text, struct block *block)
{
    char address[64], *end;
    const char *slash = strchr(text, '/');
    snprintf(address, sizeof address, "%.*s", (int)(slash - text), text);
    if ((size_t)(slash - text) >= sizeof address || !parse_ip(address, block))
        return REFUSE(parse, "found address \"%.80s\"; allowed: an IP address before the slash",
                      text);
    long bits = strtol(slash + 1, &end, 10);
    if (slash[1] < '0' || slash[1] > '9' || *end || bits < 0 || bits > address_bits(block))
        return REFUSE(parse, "found address \"%.80s\"; allowed: 0 to %d behind the slash", text,
                      address_bits(block));
    set_mask(block, (int)bits);
    return true;
}

static bool is_whole_mask(const unsigned char *mask, int bytes)
{
    bool ended = false;
    for (int i = 0; i < bytes * 8; i++) {
        bool set = mask[i / 8] & 0x80 >> i % 8;
        if (set && ended)
            return false;
        ended = ended || !set;
    }
    return true;
}

/* An IP address with its mask in the next field. */
static bool parse_mask(struct parse *parse, const char *address, struct block *block)
{
    const struct hba_token *word;
    struct block mask = {0};
    if (!next_word(parse, "the mask", &word))
        return false;
    if (!parse_ip(word->text, &mask) || mask.family != block->family)
        return REFUSE(parse, "found \"%.60s\" behind address %.60s; allowed: its mask, or %.60s/%d",
                      word->text, address, address, address_bits(block));
    if (!is_whole_mask(mask.address, address_bits(block) / 8))
        return REFUSE(parse, "found mask \"%.60s\"; allowed: ones, then zeros", word->text);
    memcpy(block->mask, mask.address, sizeof block->mask);
    return true;
}

/* What has no letter is an IP address with a slip in it. */
static bool is_host_name(const char *text)
{
    static const char digits[] = ".-_0123456789",
                      letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t length = strlen(text);
    while (*text && (strchr(digits, *text) || strchr(letters, *text)))
        text++;
    return !*text && length > 1 && length < 254 && strpbrk(text - length, letters);
}

static bool parse_address(struct parse *parse, struct rule *rule)
{
    const struct hba_token *word;
    if (!next_word(parse, "an address", &word))
        return false;
    rule->address = is_keyword(word, "all")        ? ADDRESS_ALL
                    : is_keyword(word, "samehost") ? ADDRESS_SAMEHOST
                    : is_keyword(word, "samenet")  ? ADDRESS_SAMENET
                                                   : ADDRESS_BLOCK;
    if (rule->address != ADDRESS_BLOCK)
        return true;
    if (strchr(word->text, '/'))
        return parse_cidr(parse, word->text, &rule->block);
    if (parse_ip(word->text, &rule->block))
        return parse_mask(parse, word->text, &rule->block);
    if (!is_host_name(word->text))
        return REFUSE(parse,
                      "found address \"%.80s\"; allowed: all, samehost, samenet, an IP address "
                      "with its mask (10.0.0.0/8), a host's name, .example.com",
                      word->text);
    rule->address = ADDRESS_HOST;
    rule->host = word->text;
    return true;
}

/* ---- methods and options ---- */

static bool parse_method(struct parse *parse, struct rule *rule)
{
    const struct hba_token *word;
    if (!next_word(parse, "a method", &word))
        return false;
    for (int i = 0; i < METHODS; i++) {
        if (!is_keyword(word, methods[i].name))
            continue;
        rule->public.method = methods[i].method;
        if (rule->public.method == HBA_CERT && rule->type != RULE_HOSTSSL)
            return REFUSE(parse, "found method cert on a line that is not hostssl; allowed: "
                                 "hostssl ... cert");
        if (rule->public.method == HBA_PEER && rule->type != RULE_LOCAL)
            return REFUSE(parse,
                          "found method %s on a line that is not local; allowed: local ... peer",
                          word->text);
        return true;
    }
    return REFUSE(parse, "found method \"%.60s\"; allowed: " METHOD_NAMES, word->text);
}

static bool parse_map(struct parse *parse, struct rule *rule, const char *name)
{
    if (rule->public.method != HBA_CERT && rule->public.method != HBA_PEER)
        return REFUSE(parse, "found map with method %s; allowed: with cert and peer",
                      hba_method_name(rule->public.method));
    if (!name[0])
        return REFUSE(parse, "found map without a name; allowed: map=NAME");
    rule->public.map = name;
    return true;
}

static bool parse_option(struct parse *parse, struct rule *rule)
{
    const struct hba_token *word;
    if (!next_word(parse, "an option", &word))
        return false;
    if (strcmp(word->text, "clientcert=verify-ca") == 0)
        rule->public.clientcert = HBA_CLIENTCERT_VERIFY_CA;
    else if (strcmp(word->text, "clientcert=verify-full") == 0)
        rule->public.clientcert = HBA_CLIENTCERT_VERIFY_FULL;
    else if (strncmp(word->text, "map=", 4) == 0)
        return parse_map(parse, rule, word->text + 4);
    else
        return REFUSE(parse,
                      "found option \"%.80s\"; allowed: clientcert=verify-ca, "
                      "clientcert=verify-full, map=NAME",
                      word->text);
    if (rule->type != RULE_HOSTSSL)
        return REFUSE(parse, "found clientcert on a line that is not hostssl; allowed: hostssl ... "
                             "clientcert=verify-full");
    if (rule->public.method == HBA_CERT && rule->public.clientcert != HBA_CLIENTCERT_VERIFY_FULL)
        return REFUSE(parse, "found clientcert=verify-ca with method cert, which proves the user "
                             "anyway; allowed: clientcert=verify-full, or none");
    return true;
}

static bool parse_rule(struct parse *parse, struct rule *rule)
{
    rule->public.file = parse->line->file;
    rule->public.line = parse->line->line;
    bool ok = parse_type(parse, &rule->type) &&
              parse_names(parse, "a database", true, &rule->databases) &&
              parse_names(parse, "a user", false, &rule->users) &&
              (rule->type == RULE_LOCAL || parse_address(parse, rule)) && parse_method(parse, rule);
    while (ok && parse->rest)
        ok = parse_option(parse, rule);
    return ok;
}

/* ---- this machine ---- */

static void store_address(struct block *block, unsigned char *to, const struct sockaddr *address)
{
    block->family = address->sa_family;
    if (address->sa_family == AF_INET)
        memcpy(to, &((const struct sockaddr_in *)address)->sin_addr, 4);
    else
        memcpy(to, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
}

static void find_own_addresses(struct hba *hba, struct arena *arena)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *one = all; one; one = one->ifa_next) {
        if (!one->ifa_addr || !one->ifa_netmask ||
            (one->ifa_addr->sa_family != AF_INET && one->ifa_addr->sa_family != AF_INET6))
            continue;
        struct block *block = arena_alloc(arena, sizeof *block);
        *block = (struct block){.next = hba->own};
        store_address(block, block->mask, one->ifa_netmask);
        store_address(block, block->address, one->ifa_addr);
        hba->own = block;
    }
    freeifaddrs(all);
}

/* ---- loading ---- */

static struct hba *make_rules(struct hba_reader *reader, const char *path)
{
    struct hba *hba = arena_alloc(reader->arena, sizeof *hba);
    struct rule **last = &hba->rules;
    *hba = (struct hba){0};
    for (const struct hba_line *line = reader->first; line; line = line->next) {
        struct parse parse = {reader, line, line->fields};
        struct rule *rule = arena_alloc(reader->arena, sizeof *rule);
        *rule = (struct rule){0};
        if (!parse_rule(&parse, rule))
            return NULL;
        *last = rule;
        last = &rule->next;
    }
    if (!hba->rules) {
        hba_refuse(reader, path, 1,
                   "found no rules; allowed: at least one, since without any nobody "
                   "could connect");
        return NULL;
    }
    find_own_addresses(hba, reader->arena);
    return hba;
}

static struct hba_reader new_reader(struct arena *arena, char *error, size_t size)
{
    error[0] = '\0';
    return (struct hba_reader){.arena = arena, .error = error, .error_size = size};
}

struct hba *hba_parse(struct arena *arena, const char *path, const char *text, size_t length,
                      char *error, size_t size)
{
    struct hba_reader reader = new_reader(arena, error, size);
    reader.last = &reader.first;
    return hba_read_text(&reader, path, text, length, 0) ? make_rules(&reader, path) : NULL;
}

struct hba *hba_load(struct arena *arena, const char *path, char *error, size_t size)
{
    struct hba_reader reader = new_reader(arena, error, size);
    reader.last = &reader.first;
    return hba_read_file(&reader, path, 0) ? make_rules(&reader, path) : NULL;
}

const struct hba_rule *hba_wants_certificates(const struct hba *hba)
{
    for (const struct rule *rule = hba->rules; rule; rule = rule->next)
        if (rule->public.method == HBA_CERT || rule->public.clientcert)
            return &rule->public;
    return NULL;
}

const struct hba_rule *hba_without_map(const struct hba *hba, const struct ident *ident)
{
    for (const struct rule *rule = hba->rules; rule; rule = rule->next)
        if (rule->public.map && !(ident && ident_has_map(ident, rule->public.map)))
            return &rule->public;
    return NULL;
}

const struct hba_rule *hba_with_roles_in_map(const struct hba *hba, const struct ident *ident)
{
    for (const struct rule *rule = hba->rules; rule; rule = rule->next)
        if (rule->public.map && ident_wants_roles(ident, rule->public.map))
            return &rule->public;
    return NULL;
}

const struct hba_rule *hba_wants_roles(const struct hba *hba)
{
    for (const struct rule *rule = hba->rules; rule; rule = rule->next) {
        for (const struct name *name = rule->databases; name; name = name->next)
            if (name->kind == NAME_SAMEROLE)
                return &rule->public;
        for (const struct name *name = rule->users; name; name = name->next)
            if (name->kind == NAME_ROLE)
                return &rule->public;
    }
    return NULL;
}

/* ---- matching ---- */

/* The visitor's IP address; an IPv4 address in IPv6 clothes is one of IPv4. False: no IP address. */
static bool visitor_address(const struct sockaddr *address, struct block *block)
{
    *block = (struct block){0};
    if (!address || (address->sa_family != AF_INET && address->sa_family != AF_INET6))
        return false;
    store_address(block, block->address, address);
    if (block->family == AF_INET6 &&
        IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6 *)address)->sin6_addr)) {
        block->family = AF_INET;
        memmove(block->address, block->address + 12, 4);
    }
    return true;
}

static bool in_block(const struct block *block, const struct block *visitor, bool exact)
{
    if (block->family != visitor->family)
        return false;
    for (int i = 0; i < address_bits(block) / 8; i++)
        if ((block->address[i] ^ visitor->address[i]) & (exact ? 0xff : block->mask[i]))
            return false;
    return true;
}

static bool is_own(const struct hba *hba, const struct block *visitor, bool exact)
{
    for (const struct block *block = hba->own; block; block = block->next)
        if (in_block(block, visitor, exact))
            return true;
    return false;
}

static bool fits_address(const struct hba *hba, const struct rule *rule,
                         const struct block *visitor)
{
    switch (rule->address) {
    case ADDRESS_ALL:
        return true;
    case ADDRESS_BLOCK:
        return in_block(&rule->block, visitor, false);
    case ADDRESS_SAMEHOST:
        return is_own(hba, visitor, true);
    case ADDRESS_SAMENET:
        return is_own(hba, visitor, false);
    case ADDRESS_HOST:
        return true; /* fits_host() tells */
    }
    return false;
}

static bool fits_type(const struct rule *rule, bool is_ip, bool tls)
{
    switch (rule->type) {
    case RULE_LOCAL:
        return !is_ip;
    case RULE_HOST:
        return is_ip;
    case RULE_HOSTSSL:
        return is_ip && tls;
    case RULE_HOSTNOSSL:
        return is_ip && !tls;
    }
    return false;
}

static enum fit fits_pattern(const struct pattern *pattern, const char *name)
{
    switch (pattern_match(pattern, name, NULL)) {
    case PATTERN_NO:
        return FIT_NO;
    case PATTERN_YES:
        return FIT_YES;
    case PATTERN_FAILED:
        break;
    }
    return FIT_TOO_LONG;
}

static enum fit fits_exactly(const char *one, const char *other)
{
    return strcmp(one, other) == 0 ? FIT_YES : FIT_NO;
}

bool hba_is_member(const char *roles, const char *role)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = roles, *letter;
    while ((at = strchr(at, ',')) && *++at) {
        for (letter = role; *letter; letter++, at += 2)
            if (at[0] != digits[(unsigned char)*letter >> 4] || at[1] != digits[*letter & 15])
                break;
        if (!*letter && *at == ',' && letter != role)
            return true;
    }
    return false;
}

/* Whether the visitor is a member of the role. */
static enum fit fits_role(const char *role, const struct hba_visitor *visitor)
{
    if (!visitor->roles)
        return FIT_NEEDS_ROLES;
    return hba_is_member(visitor->roles, role) ? FIT_YES : FIT_NO;
}

/* "all" is every database, but not physical replication, which has none. */
static enum fit fits_database(const struct name *name, const struct hba_visitor *visitor)
{
    if (visitor->replication || name->kind == NAME_REPLICATION)
        return visitor->replication && name->kind == NAME_REPLICATION ? FIT_YES : FIT_NO;
    if (name->kind == NAME_PATTERN)
        return fits_pattern(name->pattern, visitor->database);
    if (name->kind == NAME_SAMEROLE)
        return fits_role(visitor->database, visitor);
    if (name->kind == NAME_ALL)
        return FIT_YES;
    return fits_exactly(name->kind == NAME_SAMEUSER ? visitor->user : name->text,
                        visitor->database);
}

static enum fit fits_user(const struct name *name, const struct hba_visitor *visitor)
{
    if (name->kind == NAME_PATTERN)
        return fits_pattern(name->pattern, visitor->user);
    if (name->kind == NAME_ROLE)
        return fits_role(name->text, visitor);
    return name->kind == NAME_ALL ? FIT_YES : fits_exactly(name->text, visitor->user);
}

static enum fit fits_names(const struct rule *rule, const struct hba_visitor *visitor)
{
    enum fit database = FIT_NO, user = FIT_NO;
    for (const struct name *name = rule->databases; name && database == FIT_NO; name = name->next)
        database = fits_database(name, visitor);
    if (database != FIT_YES)
        return database;
    for (const struct name *name = rule->users; name && user == FIT_NO; name = name->next)
        user = fits_user(name, visitor);
    return user;
}

/* ".example.com" is the end of a host's name. */
static enum fit fits_host(const struct rule *rule, const struct hba_visitor *visitor)
{
    if (rule->address != ADDRESS_HOST)
        return FIT_YES;
    if (!visitor->host)
        return FIT_NEEDS_HOST;
    size_t wanted = strlen(rule->host), length = strlen(visitor->host);
    if (rule->host[0] == '.' ? length <= wanted : length != wanted)
        return FIT_NO;
    return strcasecmp(rule->host, visitor->host + length - wanted) == 0 ? FIT_YES : FIT_NO;
}

const struct hba_rule *hba_match(const struct hba *hba, const struct hba_visitor *visitor,
                                 enum hba_doubt *doubt)
{
    static const enum hba_doubt doubts[] = {[FIT_NO] = HBA_SURE,
                                            [FIT_YES] = HBA_SURE,
                                            [FIT_TOO_LONG] = HBA_TOO_LONG,
                                            [FIT_NEEDS_ROLES] = HBA_NEEDS_ROLES,
                                            [FIT_NEEDS_HOST] = HBA_NEEDS_HOST};
    struct block address;
    bool is_ip = visitor_address(visitor->address, &address);
    *doubt = HBA_SURE;
    for (const struct rule *rule = hba->rules; rule; rule = rule->next) {
        if (!fits_type(rule, is_ip, visitor->tls) || (is_ip && !fits_address(hba, rule, &address)))
            continue;
        enum fit fit = fits_names(rule, visitor);
        if (fit == FIT_YES)
            fit = fits_host(rule, visitor);
        *doubt = doubts[fit];
        if (fit != FIT_NO)
            return &rule->public;
    }
    return NULL;
}
