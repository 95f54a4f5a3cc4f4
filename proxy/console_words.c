/* console_words.c: takes a console command apart into words, past comments and quotes. */
#include "proxy/console_words.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* Past a comment that may hold others; NULL: it has no end. */
static const char *skip_comment(const char *p)
{
    int depth = 0;
    do {
        if (!*p)
            return NULL;
        if (p[0] == '/' && p[1] == '*') {
            depth++;
            p += 2;
        } else if (p[0] == '*' && p[1] == '/') {
            depth--;
            p += 2;
        } else {
            p++;
        }
    } while (depth);
    return p;
}

static const char *skip_blank(const char *p, bool *unterminated)
{
    for (;;) {
        if (*p == ' ' || (*p >= '\t' && *p <= '\r')) {
            p++;
        } else if (p[0] == '-' && p[1] == '-') {
            p += strcspn(p, "\r\n");
        } else if (p[0] == '/' && p[1] == '*') {
            const char *end = skip_comment(p);
            *unterminated |= end == NULL;
            p = end ? end : p + strlen(p);
        } else {
            return p;
        }
    }
}

static bool is_name_byte(char c)
{
    unsigned char byte = (unsigned char)c;
    return isalnum(byte) || byte == '_' || byte == '$' || byte == '.' || byte >= 0x80;
}

/* Behind the closing quote; a doubled one is part of the text. */
static const char *scan_quoted(const char *p, struct word *word, bool *unterminated)
{
    char quote = *p++;
    word->kind = quote == '"' ? WORD_QUOTED : WORD_STRING;
    word->at = p;
    while (*p && (p[0] != quote || p[1] == quote))
        p += p[0] == quote ? 2 : 1;
    word->length = (size_t)(p - word->at);
    *unterminated |= !*p;
    return *p ? p + 1 : p;
}

static const char *scan_word(const char *p, struct word *word, bool *unterminated)
{
    if (*p == '"' || *p == '\'')
        return scan_quoted(p, word, unterminated);
    const char *end = p + (*p == '-' && isdigit((unsigned char)p[1]));
    word->kind = isdigit((unsigned char)*end) ? WORD_NUMBER : WORD_PLAIN;
    while (is_name_byte(*end))
        end++;
    if (end == p) {
        word->kind = WORD_SYMBOL;
        end++;
    }
    word->at = p;
    word->length = (size_t)(end - p);
    return end;
}

size_t words_take(const char *sql, struct words *words)
{
    struct word word;
    const char *p;
    *words = (struct words){.count = 0};
    for (p = sql; p = skip_blank(p, &words->unterminated), *p && *p != ';';) {
        p = scan_word(p, &word, &words->unterminated);
        if (words->count < CONSOLE_WORDS_MAX)
            words->items[words->count++] = word;
        else
            words->too_many = true;
    }
    return (size_t)(p - sql) + (*p == ';');
}

static bool is_text(const struct word *word, const char *text, size_t length)
{
    return word->kind != WORD_STRING && word->kind != WORD_QUOTED && word->length == length &&
           strncasecmp(word->at, text, length) == 0;
}

bool word_is(const struct words *words, int index, const char *text)
{
    return index < words->count && is_text(&words->items[index], text, strlen(text));
}

/* How many words from `from` on the phrase takes, -1 if it is not what stands there. */
static int match(const struct words *words, int from, const char *phrase)
{
    int at = from;
    while (*phrase) {
        size_t length = strcspn(phrase, " ");
        if (at >= words->count || !is_text(&words->items[at], phrase, length))
            return -1;
        at++;
        phrase += length + strspn(phrase + length, " ");
    }
    return at - from;
}

bool words_begin(const struct words *words, int from, const char *phrase)
{
    return match(words, from, phrase) >= 0;
}

bool words_are(const struct words *words, int from, const char *phrase)
{
    return match(words, from, phrase) == words->count - from;
}

bool word_text(const struct words *words, int index, char *out, size_t size)
{
    const struct word *word = &words->items[index];
    char quote = word->kind == WORD_QUOTED ? '"' : word->kind == WORD_STRING ? '\'' : '\0';
    size_t used = 0;
    for (size_t i = 0; i < word->length; i++) {
        if (used + 1 >= size)
            return false;
        if (quote && word->at[i] == quote)
            i++; /* the first of two */
        out[used++] = word->at[i];
    }
    out[used] = '\0';
    return true;
}
