/* lookup.c: what a request wants looked up: whom to ask for it, and what follows from the answers. */
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "proxy/lookup_internal.h"
#include "proxy/session.h"

/*
 * One value. CHECKING: the shard that the cache names is asked; ASKING: all are; then SETTLED. All of it lives
 * in an arena of its own, for the request's may be emptied between two messages of a batch.
 */
#define QUESTIONS_MAX 64 /* kept for the statements that follow in the request */
enum question_state { QUESTION_CHECKING, QUESTION_ASKING, QUESTION_SETTLED };

struct lookup_question {
    struct lookup_question *next;
    struct lookup_request *request;
    struct lookup_answer answer; /* what it is about, and what is known */
    enum question_state state;
    bool *shards;            /* = answer.shards */
    struct lookup_ask *asks; /* one for each shard */
    int open;                /* asks without an answer */
};

struct lookup_request {
    struct arena arena;
    struct list_node link; /* lookups->answered */
    struct client *client;
    struct lookup_question *questions;
    int nquestions;
    int open;    /* questions that are not settled */
    bool waits;  /* the client does */
    bool failed; /* a shard cannot be asked: as if there were no lookups */
    bool off;
};

const struct lookup_rule *lookup_rule_of(const struct lookup_question *question)
{
    return question->answer.lookup;
}

const char *lookup_value_of(const struct lookup_question *question)
{
    return question->answer.value;
}

static struct lookups *lookups_of(struct worker *worker)
{
    if (worker->lookups)
        return worker->lookups;
    worker->lookups = mem_alloc(sizeof *worker->lookups);
    worker->lookups->worker = worker;
    list_init(&worker->lookups->probes);
    list_init(&worker->lookups->answered);
    return worker->lookups;
}

/* ---- questions ---- */

static bool ask(struct lookup_question *question, unsigned shard)
{
    const struct client *client = question->request->client;
    struct lookup_ask *one = &question->asks[shard];
    *one = (struct lookup_ask){.shard = shard, .question = question};
    question->open++;
    return probe_ask(client->worker->lookups, client->database, shard, one);
}

static const struct shardmap *map_of(const struct lookup_question *question)
{
    return question->request->client->database->map;
}

/* NULL: a table of the map that is there no more. */
static const struct keyspace *keyspace_of(const struct lookup_question *question)
{
    const struct lookup_rule *lookup = question->answer.lookup;
    return shardmap_table(map_of(question), lookup->schema, lookup->relation)->keyspace;
}

/* One that owns nothing may not even have the table. */
static bool may_have(const struct keyspace *keyspace, unsigned shard)
{
    return !keyspace || shardmap_owns(keyspace, shard);
}

static bool ask_all(struct lookup_question *question)
{
    const struct keyspace *keyspace = keyspace_of(question);
    question->state = QUESTION_ASKING;
    unsigned nshards = shardmap_shards(map_of(question));
    for (unsigned s = 0; s < nshards; s++)
        if (may_have(keyspace, s) && !ask(question, s))
            return false;
    return true;
}

/* Whether the shard has rows that it does not own: see docs/internals/resharding.md. */
static bool has_ghosts(const struct lookup_question *question, unsigned shard)
{
    const struct keyspace *keyspace = keyspace_of(question);
    return keyspace && keyspace_has_ghosts(keyspace, shard);
}

/* Of a unique value: all its rows have this key. Of another the shard may have rows of its own, too. */
static bool is_ghost(const struct lookup_question *question, unsigned shard, const char *key)
{
    unsigned owner;
    if (!question->answer.lookup->unique || !key || !has_ghosts(question, shard))
        return false;
    return shardmap_shard_of_text(map_of(question), keyspace_of(question), key, &owner) &&
           owner != shard;
}

/* The shard where it was seen last, if that is still one; -1: not known. */
static int remembered(const struct lookup_question *question, bool *guess)
{
    const struct client *client = question->request->client;
    const struct lookup_answer *answer = &question->answer;
    int shard = -1;
    if (answer->lookup->unique)
        shard = lookup_cache_get(client->worker->lookups, client->database->name, answer->lookup,
                                 answer->value, guess);
    if (shard < 0 || shard >= (int)shardmap_shards(map_of(question)))
        return -1;
    return has_ghosts(question, (unsigned)shard) ? -1 : shard;
}

static struct lookup_stats *stats_of(const struct lookup_question *question)
{
    const struct client *client = question->request->client;
    return lookup_stats_of(client->worker->lookups, client->database->name,
                           question->answer.lookup);
}

static void count_hit(struct lookup_question *question)
{
    question->answer.cached = true;
    question->request->client->stats->lookup_hits++;
    stats_of(question)->hits++;
}

static bool start(struct lookup_question *question, bool guess)
{
    struct client *client = question->request->client;
    bool trusted = false;
    int shard = remembered(question, &trusted);
    if (shard >= 0 && guess && trusted) {
        client->request.guess = true;
        question->shards[shard] = true;
        question->state = QUESTION_SETTLED;
        question->request->open--;
        count_hit(question);
        return true;
    }
    if (shard >= 0)
        return ask(question, (unsigned)shard);
    stats_of(question)->misses++;
    client->stats->lookup_misses++;
    return ask_all(question);
}

static struct lookup_question *find(const struct lookup_request *request,
                                    const struct lookup_want *want)
{
    struct lookup_question *at = request->questions;
    while (at && (at->answer.lookup != want->lookup || strcmp(at->answer.value, want->value) != 0))
        at = at->next;
    return at;
}

static struct lookup_question *add(struct lookup_request *request, const struct lookup_want *want)
{
    struct arena *arena = &request->arena;
    unsigned nshards = shardmap_shards(request->client->database->map);
    struct lookup_question *question = arena_new(arena, struct lookup_question);
    question->request = request;
    question->shards = arena_array(arena, bool, nshards);
    memset(question->shards, 0, sizeof *question->shards * nshards);
    question->asks = arena_array(arena, struct lookup_ask, nshards);
    memset(question->asks, 0, sizeof *question->asks * nshards);
    question->answer = (struct lookup_answer){.lookup = want->lookup,
                                              .value = arena_strdup(arena, want->value),
                                              .shards = question->shards};
    question->next = request->questions;
    request->questions = question;
    request->nquestions++;
    request->open++;
    return question;
}

/* ---- answers ---- */

static void fail(struct lookup_request *request)
{
    struct client *client = request->client;
    if (request->failed)
        return;
    request->failed = true;
    client->stats->lookup_failed++;
    for (struct lookup_question *at = request->questions; at; at = at->next)
        if (at->state != QUESTION_SETTLED)
            lookup_stats_of(client->worker->lookups, client->database->name, at->answer.lookup)
                ->failed++;
}

static void note_answered(struct lookup_request *request)
{
    if (request->waits && (!request->open || request->failed)) {
        list_remove(&request->link);
        list_push_back(&request->client->worker->lookups->answered, &request->link);
    }
}

static int count_shards(const struct lookup_question *question, unsigned *last)
{
    unsigned nshards = shardmap_shards(question->request->client->database->map);
    int count = 0;
    for (unsigned s = 0; s < nshards; s++)
        if (question->shards[s]) {
            count++;
            *last = s;
        }
    return count;
}

static void settle(struct lookup_question *question)
{
    const struct client *client = question->request->client;
    const struct lookup_answer *answer = &question->answer;
    unsigned shard = 0;
    if (question->state == QUESTION_CHECKING)
        count_hit(question);
    else if (answer->lookup->unique && count_shards(question, &shard) == 1)
        lookup_cache_put(client->worker->lookups, client->database->name, answer->lookup,
                         answer->value, shard);
    question->state = QUESTION_SETTLED;
    question->request->open--;
}

/* The shard that was remembered has it no more. */
static void ask_anew(struct lookup_question *question)
{
    struct client *client = question->request->client;
    const struct lookup_answer *answer = &question->answer;
    struct lookups *lookups = client->worker->lookups;
    client->stats->lookup_stale++;
    lookup_stats_of(lookups, client->database->name, answer->lookup)->stale++;
    lookup_cache_forget(lookups, client->database->name, answer->lookup, answer->value);
    if (!ask_all(question))
        fail(question->request);
}

void lookup_answered(struct lookup_ask *ask, bool found, const char *key)
{
    struct lookup_question *question = ask->question;
    struct lookup_request *request = question->request;
    ask->probe = NULL;
    question->open--;
    found = found && !is_ghost(question, ask->shard, key);
    if (found)
        question->shards[ask->shard] = true;
    if (found && key && !question->answer.key)
        question->answer.key = arena_strdup(&request->arena, key);
    if (!question->open && question->state == QUESTION_CHECKING && !found)
        ask_anew(question);
    else if (!question->open)
        settle(question);
    note_answered(request);
}

void lookup_failed(struct lookup_ask *ask)
{
    struct lookup_request *request = ask->question->request;
    ask->probe = NULL;
    fail(request);
    note_answered(request);
}

/* ---- sessions ---- */

static void give_up(struct lookup_request *request)
{
    unsigned nshards = shardmap_shards(request->client->database->map);
    for (struct lookup_question *at = request->questions; at; at = at->next)
        for (unsigned s = 0; s < nshards; s++)
            probe_give_up(&at->asks[s]);
    list_remove(&request->link);
    request->waits = false;
}

static void resume(struct lookup_request *request)
{
    struct client *client = request->client;
    give_up(request); /* what is still under way, if something has failed */
    client->state = CLIENT_BUSY;
    if (extended_in_batch(client))
        extended_continue(client);
    else
        simple_replan(client);
}

void lookup_resume(struct lookups *lookups)
{
    while (!list_empty(&lookups->answered))
        resume(list_entry(lookups->answered.next, struct lookup_request, link));
}

static struct lookup_request *request_of(struct client *client)
{
    struct lookup_request *request = client->request.lookups;
    if (request)
        return request;
    request = mem_alloc(sizeof *request);
    arena_init(&request->arena);
    list_init(&request->link);
    request->client = client;
    lookups_of(client->worker);
    client->request.lookups = request;
    return request;
}

static void forget_settled(struct lookup_request *request)
{
    request->questions = NULL;
    request->nquestions = request->open = 0;
    arena_reset(&request->arena);
}

/* A read that is not part of anything: it can be asked again without anybody's notice. */
static bool may_guess(const struct client *client, bool alone)
{
    const struct request *request = &client->request;
    return alone && request->plan.shows_value && !client->tx && !client->nparticipants &&
           !request->attempts && !request->incomplete && !request->series && !request->names;
}

/* Starts to ask for what the plan wants. */
static void ask_for_wants(struct lookup_request *request, const struct plan *plan, bool guess)
{
    if (request->nquestions >= QUESTIONS_MAX)
        forget_settled(request);
    for (int i = 0; i < plan->nwants && !request->failed && !request->off; i++)
        if (!find(request, &plan->wants[i]) && !start(add(request, &plan->wants[i]), guess))
            fail(request);
}

/* A guess is for statements that go to that shard as they are, where what comes of it is seen. */
static bool take_guess(struct lookup_request *request, lookup_replan *replan, void *arg)
{
    struct client *client = request->client;
    replan(client, arg);
    if (client->request.plan.kind == PLAN_DIRECT && !client->request.plan.nwants)
        return true;
    client->request.guess = false;
    forget_settled(request);
    replan(client, arg);
    return false;
}

bool lookup_wait(struct client *client, bool alone, lookup_replan *replan, void *arg)
{
    const struct plan *plan = &client->request.plan;
    struct lookup_request *request = request_of(client);
    ask_for_wants(request, plan, may_guess(client, alone));
    if (client->request.guess) {
        if (take_guess(request, replan, arg))
            return false;
        ask_for_wants(request, plan, false);
    }
    if (request->failed || request->off || !request->open) {
        give_up(request);
        return false;
    }
    request->waits = true;
    client->state = CLIENT_WAITING;
    return true;
}

void lookup_guess_failed(struct client *client)
{
    struct lookups *lookups = client->worker->lookups;
    const struct lookup_question *question = client->request.lookups->questions;
    client->request.guess = false;
    client->stats->lookup_hits--; /* it counts when it is asked again */
    stats_of(question)->hits--;
    lookup_cache_distrust(lookups, client->database->name, question->answer.lookup,
                          question->answer.value);
}

void lookup_cancel(struct client *client)
{
    struct lookup_request *request = client->request.lookups;
    if (!request || !request->waits)
        return;
    give_up(request);
    request->failed = true; /* its answers are incomplete */
}

void lookup_drop(struct client *client)
{
    lookup_cancel(client);
    arena_free(&client->request.lookups->arena);
    free(client->request.lookups);
    client->request.lookups = NULL;
}

void lookup_off(struct client *client, bool off)
{
    if (client->request.lookups)
        client->request.lookups->off = off;
}

/* Shards where the session may have changed rows in a way that only it can see, or sees an older state. */
static const bool *own_shards(const struct client *client)
{
    bool *here = NULL;
    bool all = extended_has_written(client);
    for (int i = 0; i < client->nparticipants; i++) {
        if (!all && !client->participants[i]->begun)
            continue;
        if (!here) {
            unsigned nshards = shardmap_shards(client->database->map);
            here = arena_array(client->request.arena, bool, nshards);
            memset(here, 0, sizeof *here * nshards);
        }
        here[client->participants[i]->shard] = true;
    }
    return here;
}

const struct lookup_answers *lookup_answers(const struct client *client)
{
    static const struct lookup_answers none = {.count = 0};
    const struct lookup_request *request = client->request.lookups;
    if (!shardmap_lookup(client->database->map, 0) || (client->tx && client->tx->changed_schema))
        return NULL;
    if (!request)
        return &none;
    if (request->failed || request->off)
        return NULL;
    struct arena *arena = client->request.arena;
    struct lookup_answers *answers = arena_new(arena, struct lookup_answers);
    struct lookup_answer *items = arena_array(arena, struct lookup_answer, request->nquestions);
    *answers = (struct lookup_answers){.items = items, .here = own_shards(client)};
    for (const struct lookup_question *at = request->questions; at; at = at->next)
        if (at->state == QUESTION_SETTLED)
            items[answers->count++] = at->answer;
    return answers;
}

void lookup_tick(struct worker *worker)
{
    if (worker->lookups)
        probes_tick(worker->lookups);
}

void lookup_stop(struct worker *worker)
{
    if (!worker->lookups)
        return;
    probes_free(worker->lookups);
    lookup_cache_free(worker->lookups);
    free(worker->lookups);
    worker->lookups = NULL;
}
