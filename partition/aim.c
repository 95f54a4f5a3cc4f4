/* aim.c: the grid's steps around the present, in the policy's time zone, as the catalog's server knows it. */
#include "partition/aim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- zones ---- */

/* $1: local times, $2: the zone. Of a time that the zone skips: the moment after. */
static const char instants_sql[] =
    "SELECT round((extract(epoch FROM l AT TIME ZONE $2) - 946684800) * 1000000)::bigint"
    " FROM unnest($1::timestamp[]) WITH ORDINALITY AS u(l, n) ORDER BY n";
static const char locals_sql[] = "SELECT round((extract(epoch FROM l::timestamptz AT TIME ZONE $2) "
                                 "- 946684800) * 1000000)::bigint"
                                 " FROM unnest($1::text[]) WITH ORDINALITY AS u(l, n) ORDER BY n";

static const char *array_of(struct arena *arena, const int64_t *times, int count, const char *zone)
{
    char *list = arena_alloc(arena, (size_t)count * (CIVIL_TEXT + 6) + 3), *to = list;
    char text[CIVIL_TEXT];
    *to++ = '{';
    for (int i = 0; i < count; i++)
        to += sprintf(to, "%s\"%s%s\"", i ? "," : "", civil_print(times[i], text), zone);
    strcpy(to, "}");
    return list;
}

static bool convert(struct work *work, const char *zone, bool to_instants, int64_t *times,
                    int count)
{
    if (strcmp(zone, "UTC") == 0 || count == 0)
        return true;
    PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error,
                              to_instants ? instants_sql : locals_sql, 2,
                              array_of(&work->arena, times, count, to_instants ? "" : "+00"), zone);
    for (int i = 0; rows && i < count; i++)
        times[i] = strtoll(PQgetvalue(rows, i, 0), NULL, 10);
    PQclear(rows);
    return rows || work_fails(work, -1, zone, "cannot convert times", &work->error);
}

/* Points of the policy's column from its local times, in place. */
static bool to_points(struct work *work, const struct policy *policy, int64_t *times, int count)
{
    return !control_is_instant(policy->control) ||
           convert(work, policy->timezone, true, times, count);
}

/* ---- the grid ---- */

/*
 * Boundaries are found in local time, by the calendar, and then made moments: months and days are as long as the zone has
 * them. Hours and minutes are counted in moments from one that is a boundary, so that none is skipped or doubled by
 * a change of the clocks.
 */
struct grid {
    int64_t present; /* as boundaries are found: local, or a moment, or a number */
    int64_t anchor;
    bool local; /* boundaries are to be made moments */
};

static bool find_grid(struct work *work, const struct policy *policy, int64_t point,
                      struct grid *grid)
{
    bool instants = control_is_instant(policy->control);
    *grid = (struct grid){.present = point};
    if (policy->control == CONTROL_ID)
        return true;
    grid->present = work->now;
    grid->anchor = INTERVAL_ANCHOR;
    grid->local = instants && !interval_is_fixed(&policy->every);
    if (instants && !grid->local)
        return convert(work, policy->timezone, true, &grid->anchor, 1);
    return convert(work, policy->timezone, false, &grid->present, 1);
}

/* A point as boundaries are found. */
static bool as_found(struct work *work, const struct policy *policy, const struct grid *grid,
                     int64_t *point)
{
    return !grid->local || convert(work, policy->timezone, false, point, 1);
}

static bool too_many(struct work *work, const struct policy *policy, int64_t count)
{
    work_tell(work, FLEET_PROBLEM, -1, policy->shown,
              WORK_TEXT(&work->arena, "these would be %lld partitions: no more than %d at once",
                        (long long)count, AIM_CELLS_MAX),
              "make partitions wider (--every), or begin later (--start)");
    return false;
}

/* How many steps from `first` to beyond `present`, or AIM_CELLS_MAX + 1. */
static int64_t steps_to(const struct interval *every, int64_t first, int64_t present)
{
    int64_t steps = 0;
    for (int64_t at = first; at <= present && steps <= AIM_CELLS_MAX; steps++)
        at = interval_step(every, at, 1);
    return steps;
}

/* Boundaries first, ..., one more than cells. */
static bool make_cells(struct work *work, const struct policy *policy, const struct grid *grid,
                       int64_t first, int count, struct aim *aim)
{
    int64_t *begins = arena_array(&work->arena, int64_t, count + 1);
    int64_t *points = arena_array(&work->arena, int64_t, count + 1);
    struct cell *cells = arena_array(&work->arena, struct cell, count);
    for (int i = 0; i <= count; i++)
        begins[i] = points[i] = interval_step(&policy->every, first, i);
    if (grid->local && !to_points(work, policy, points, count + 1))
        return false;
    for (int i = 0; i < count; i++)
        cells[i] = (struct cell){{points[i], points[i + 1]}, begins[i]};
    aim->cells = cells;
    aim->ncells = count;
    return true;
}

/* Those that cells are divided by, on the grid of their own interval. */
static bool make_subs(struct work *work, const struct policy *policy, struct aim *aim)
{
    struct policy narrow = *policy;
    struct aim subs = {.point = aim->point};
    struct grid grid;
    int64_t from = aim->cells[0].range.from, to = aim->cells[aim->ncells - 1].range.to;
    if (policy->sub.kind != SUB_RANGE)
        return true;
    narrow.every = policy->sub.every;
    if (!find_grid(work, &narrow, aim->point, &grid) || !as_found(work, &narrow, &grid, &from) ||
        !as_found(work, &narrow, &grid, &to))
        return false;
    int64_t first = interval_floor(&narrow.every, grid.anchor, from);
    int64_t count = steps_to(&narrow.every, first, to - 1);
    if (count > AIM_CELLS_MAX)
        return too_many(work, policy, count);
    if (!make_cells(work, &narrow, &grid, first, (int)count, &subs))
        return false;
    aim->subs = subs.cells;
    aim->nsubs = subs.ncells;
    return true;
}

/* The line of what has expired: as a calendar has it, for all but hours, minutes and numbers. */
static bool find_line(struct work *work, const struct policy *policy, struct aim *aim)
{
    aim->line = BOUND_LEAST;
    if (!policy->keeps)
        return true;
    aim->line = aim->point;
    if (policy->control == CONTROL_ID)
        return !__builtin_sub_overflow(aim->point, policy->keep.count, &aim->line) ||
               (aim->line = BOUND_LEAST, true);
    bool calendar = control_is_instant(policy->control) && !interval_is_fixed(&policy->keep);
    if (calendar && !convert(work, policy->timezone, false, &aim->line, 1))
        return false;
    aim->line = interval_before(&policy->keep, aim->line);
    return !calendar || convert(work, policy->timezone, true, &aim->line, 1);
}

/* Numbers end somewhere. */
static bool is_far(const struct policy *policy, int64_t point)
{
    int64_t width, end;
    return policy->control == CONTROL_ID &&
           (__builtin_mul_overflow(policy->every.count, (int64_t)policy->ahead + 2, &width) ||
            __builtin_add_overflow(point, width, &end));
}

bool aim_take(struct work *work, const struct policy *policy, int64_t point, int64_t from,
              struct aim *aim)
{
    struct grid grid;
    *aim = (struct aim){.point = point};
    if (is_far(policy, point)) {
        work_tell(work, FLEET_PROBLEM, -1, policy->shown,
                  WORK_TEXT(&work->arena, "there is no room for partitions beyond %lld",
                            (long long)point),
                  "a row with a number far from all others is in it: correct it");
        return false;
    }
    if (!find_grid(work, policy, point, &grid))
        return false;
    if (policy->control != CONTROL_ID)
        aim->point = control_is_instant(policy->control) ? work->now : grid.present;
    if (from != BOUND_MOST && !as_found(work, policy, &grid, &from))
        return false;
    int64_t first =
        interval_floor(&policy->every, grid.anchor, from < grid.present ? from : grid.present);
    int64_t count = steps_to(&policy->every, first, grid.present);
    if (count + policy->ahead > AIM_CELLS_MAX)
        return too_many(work, policy, count + policy->ahead);
    return make_cells(work, policy, &grid, first, (int)count + policy->ahead, aim) &&
           make_subs(work, policy, aim) && find_line(work, policy, aim);
}

/* ---- what users write and read ---- */

bool aim_point(struct work *work, const struct policy *policy, const char *text, int64_t *point)
{
    char *end;
    if (policy->control == CONTROL_ID) {
        *point = strtoll(text, &end, 10);
        return end != text && !*end;
    }
    return civil_read(text, point, NULL) && to_points(work, policy, point, 1);
}

bool aim_start(struct work *work, const struct policy *policy, int64_t *point)
{
    *point = BOUND_MOST;
    return !policy->start || aim_point(work, policy, policy->start, point);
}

static const char *show_one(struct arena *arena, const struct policy *policy, int64_t local,
                            bool days)
{
    char text[CIVIL_TEXT];
    if (policy->control == CONTROL_ID)
        return arena_printf(arena, "%lld", (long long)local);
    return arena_printf(arena, "%.*s", days ? 10 : CIVIL_TEXT, civil_print(local, text));
}

bool aim_locals(struct work *work, const struct policy *policy, int64_t *points, int count)
{
    return !control_is_instant(policy->control) ||
           convert(work, policy->timezone, false, points, count);
}

static bool is_end(int64_t point)
{
    return point == BOUND_LEAST || point == BOUND_MOST;
}

bool aim_show(struct work *work, const struct policy *policy, const int64_t *points, int count,
              const char **texts)
{
    int64_t *locals = arena_array(&work->arena, int64_t, count + 1);
    bool days = true;
    for (int i = 0; i < count; i++)
        locals[i] = is_end(points[i]) ? 0 : points[i];
    if (!aim_locals(work, policy, locals, count))
        return false;
    for (int i = 0; i < count; i++)
        days &= is_end(points[i]) || locals[i] % USECS_OF_DAY == 0;
    for (int i = 0; i < count; i++)
        texts[i] = points[i] == BOUND_LEAST  ? "(beginning)"
                   : points[i] == BOUND_MOST ? "(end)"
                                             : show_one(&work->arena, policy, locals[i], days);
    return true;
}
