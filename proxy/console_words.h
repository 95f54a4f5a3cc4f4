/* console_words.h: a console command as words. Pure; words point into the text. */
#ifndef PGSHUNT_PROXY_CONSOLE_WORDS_H
#define PGSHUNT_PROXY_CONSOLE_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#define CONSOLE_WORDS_MAX 24

enum word_kind {
    WORD_PLAIN,  /* letters, digits, dots: a keyword or a name */
    WORD_QUOTED, /* "name" */
    WORD_STRING, /* 'text' */
    WORD_NUMBER,
    WORD_SYMBOL, /* any other character */
};

struct word {
    enum word_kind kind;
    const char *at; /* without quotes, doubled ones still doubled */
    size_t length;
};

struct words {
    struct word items[CONSOLE_WORDS_MAX];
    int count;
    bool too_many;     /* there are more than fit */
    bool unterminated; /* a quote or a comment has no end */
};

/* Takes the words of one command; returns the bytes used, the semicolon included. */
size_t words_take(const char *sql, struct words *words);
/* Whether the words begin with those of `phrase` (lower or upper case), from `from` on. */
bool words_begin(const struct words *words, int from, const char *phrase);
/* ... and are no more. */
bool words_are(const struct words *words, int from, const char *phrase);
bool word_is(const struct words *words, int index, const char *text);
/* The word's text with doubled quotes made single. False: longer than `size`. */
bool word_text(const struct words *words, int index, char *out, size_t size);

#endif
