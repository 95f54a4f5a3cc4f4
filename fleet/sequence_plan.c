/* sequence_plan.c: judges a sequence of several shards and finds where each goes on. Pure. */
#include "fleet/sequence_plan.h"

static bool is_taken(const int *numbers, int nshards, int number)
{
    for (int i = 0; i < nshards; i++)
        if (numbers[i] == number)
            return true;
    return false;
}

/* Whether the number at `at` is another shard's. */
static bool is_copy(const int *numbers, const bool *own, int nshards, int at)
{
    for (int i = 0; i < nshards; i++) {
        if (i == at || numbers[i] != numbers[at])
            continue;
        if (own[i] && (!own[at] || i < at))
            return true;
        if (own[i] == own[at] && i < at)
            return true;
    }
    return false;
}

bool sequence_numbers(int *numbers, const bool *own, int nshards, int stride)
{
    if (nshards > stride)
        return false;
    for (int i = 0; i < nshards; i++)
        if (numbers[i] < -1 || numbers[i] >= stride || is_copy(numbers, own, nshards, i))
            numbers[i] = -1;
    for (int i = 0, next = 0; i < nshards; i++) {
        if (numbers[i] >= 0)
            continue;
        while (is_taken(numbers, nshards, next))
            next++;
        numbers[i] = next;
    }
    return true;
}

int64_t sequence_rest(int number, int stride)
{
    return (number + 1) % stride;
}

int64_t sequence_next(const struct sequence_state *state)
{
    return state->called ? state->last + state->increment : state->last;
}

static int64_t rest_of(int64_t value, int stride)
{
    int64_t rest = value % stride;
    return rest < 0 ? rest + stride : rest;
}

static bool is_interleaved(const struct sequence_state *state, int number, int stride)
{
    return state->increment == stride &&
           rest_of(state->last, stride) == sequence_rest(number, stride);
}

static enum sequence_verdict judge_one(const struct sequence_state *state)
{
    if (!state->exists)
        return SEQUENCE_MISSING;
    if (state->increment < 0)
        return SEQUENCE_DESCENDING;
    return state->cycles ? SEQUENCE_CYCLES : SEQUENCE_GOOD;
}

/* Above everything that any shard has given. */
static int64_t floor_of(const struct sequence_state *states, int nshards, int64_t highest)
{
    for (int i = 0; i < nshards; i++) {
        int64_t given = states[i].called ? states[i].last : states[i].last - 1;
        highest = given > highest ? given : highest;
        highest = states[i].min - 1 > highest ? states[i].min - 1 : highest;
    }
    return highest;
}

static bool has_room(const struct sequence_state *states, int nshards, int64_t floor, int stride)
{
    for (int i = 0; i < nshards; i++)
        if (floor > states[i].max - 2 * (int64_t)stride)
            return false;
    return true;
}

enum sequence_verdict sequence_plan(const struct sequence_state *states, const int *numbers,
                                    int nshards, int stride, int64_t highest, int64_t *start)
{
    bool good = true;
    for (int i = 0; i < nshards; i++) {
        enum sequence_verdict verdict = judge_one(&states[i]);
        if (verdict != SEQUENCE_GOOD)
            return verdict;
        good &= is_interleaved(&states[i], numbers[i], stride);
    }
    if (good)
        return SEQUENCE_GOOD;
    int64_t floor = floor_of(states, nshards, highest);
    if (!has_room(states, nshards, floor, stride))
        return SEQUENCE_FULL;
    for (int i = 0; i < nshards; i++) {
        int64_t ahead =
            rest_of(sequence_rest(numbers[i], stride) - rest_of(floor + 1, stride), stride);
        start[i] = floor + 1 + ahead;
    }
    return SEQUENCE_ALIGN;
}
