// pgx: its statement cache, its pool, batches, COPY, cancel by context, notifications.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	. "pgshunt/tests/drivers/cases"
)

var ctx = context.Background()

func connect(database string) *pgx.Conn {
	c, err := pgx.Connect(ctx, URL(database, ""))
	Must(err)
	return c
}

type querier interface {
	QueryRow(ctx context.Context, sql string, arguments ...any) pgx.Row
	Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
}

func value[T any](c querier, sql string, arguments ...any) T {
	var found T
	Must(c.QueryRow(ctx, sql, arguments...).Scan(&found))
	return found
}

func exec(c querier, sql string, arguments ...any) string {
	tag, err := c.Exec(ctx, sql, arguments...)
	Must(err)
	return tag.String()
}

func fails(err error, state string) *pgconn.PgError {
	var problem *pgconn.PgError
	if !errors.As(err, &problem) {
		panic(fmt.Sprintf("no error %s but %v", state, err))
	}
	Equal(problem.Code, state)
	return problem
}

func failsExec(c querier, state, sql string, arguments ...any) *pgconn.PgError {
	_, err := c.Exec(ctx, sql, arguments...)
	return fails(err, state)
}

func caseConnect() {
	c := connect("DATABASE")
	defer c.Close(ctx)
	Equal(value[string](c, "SHOW application_name"), "matrix")
	Must(c.Ping(ctx))
	_, err := pgx.Connect(ctx, URL("DATABASE", "wrong"))
	fails(err, "28P01")
}

func caseTypes() {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe,
		pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		config, err := pgx.ParseConfig(URL("DATABASE", ""))
		Must(err)
		config.DefaultQueryExecMode = mode
		c, err := pgx.ConnectConfig(ctx, config)
		Must(err)
		types(c)
		types(c)
		Must(c.Close(ctx))
	}
}

func types(c *pgx.Conn) {
	Equal(value[int32](c, "SELECT $1::int", int32(2147483647)), int32(2147483647))
	Equal(value[int64](c, "SELECT $1::bigint", int64(-9007199254740993)), int64(-9007199254740993))
	var numeric pgtype.Numeric
	Must(numeric.Scan(Numeric))
	found, err := value[pgtype.Numeric](c, "SELECT $1::numeric", numeric).Value()
	Must(err)
	Equal(found, Numeric)
	Equal(value[string](c, "SELECT $1::text", Text), Text)
	Equal(value[[]byte](c, "SELECT $1::bytea", []byte("\x00\x01\xff\\'")), []byte("\x00\x01\xff\\'"))
	Equal(value[bool](c, "SELECT $1::bool", true), true)
	at := time.Date(2026, 2, 3, 4, 5, 6, 789012000, time.UTC)
	Equal(value[time.Time](c, "SELECT $1::timestamptz", at).UTC(), at)
	Equal(value[string](c, "SELECT $1::uuid::text", UUID), UUID)
	Equal(value[string](c, "SELECT $1::jsonb::text", JSON), JSON)
	one, three := int32(1), int32(3)
	Equal(value[[]*int32](c, "SELECT $1::int[]", []*int32{&one, nil, &three}), []*int32{&one, nil, &three})
	Equal(value[*string](c, "SELECT $1::text", nil), (*string)(nil))
}

func casePrepared() {
	a, b := connect("DATABASE"), connect("DATABASE")
	defer a.Close(ctx)
	defer b.Close(ctx)
	_, err := a.Prepare(ctx, "mine", "SELECT 'a' || $1::int")
	Must(err)
	_, err = b.Prepare(ctx, "mine", "SELECT 'b' || $1::int")
	Must(err)
	for turn := 0; turn < 20; turn++ {
		inA, err := a.Begin(ctx)
		Must(err)
		inB, err := b.Begin(ctx)
		Must(err)
		Equal(value[string](inA, "mine", turn), fmt.Sprint("a", turn))
		Equal(value[string](inB, "mine", turn), fmt.Sprint("b", turn))
		Equal(value[int](inA, "SELECT $1::int * 2", turn), turn*2)
		if turn%2 == 0 {
			Must(inA.Commit(ctx))
			Must(inB.Commit(ctx))
		} else {
			Must(inB.Commit(ctx))
			Must(inA.Commit(ctx))
		}
	}
	Must(a.DeallocateAll(ctx))
	Equal(value[int](a, "SELECT $1::int * 2", 4), 8)
}

func caseTransactions() {
	c := connect("DATABASE")
	defer c.Close(ctx)
	outer, err := c.Begin(ctx)
	Must(err)
	exec(outer, "INSERT INTO "+Table+" VALUES ($1, 1, 'kept')", 1)
	inner, err := outer.Begin(ctx)
	Must(err)
	failsExec(inner, "23505", "INSERT INTO "+Table+" VALUES ($1, 1, 'twice')", 1)
	failsExec(inner, "25P02", "SELECT 1")
	Must(inner.Rollback(ctx))
	Must(outer.Commit(ctx))
	gone, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable})
	Must(err)
	exec(gone, "UPDATE "+Table+" SET body = 'gone'")
	Must(gone.Rollback(ctx))
	Equal(value[string](c, "SELECT body FROM "+Table+" WHERE id = $1", 1), "kept")
	Equal(exec(c, "DELETE FROM "+Table), "DELETE 1")
	reading, err := c.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	Must(err)
	failsExec(reading, "25006", "DELETE FROM "+Table)
	Must(reading.Rollback(ctx))
}

func caseErrors() {
	c := connect("DATABASE")
	defer c.Close(ctx)
	Equal(failsExec(c, "42P01", "SELECT * FROM missing_table").Position, int32(15))
	failsExec(c, "22012", "SELECT 1 / $1::int", 0)
	Equal(failsExec(c, "23514", "INSERT INTO "+Table+" VALUES ($1, 1, 'refused')", 1).ConstraintName, Table+"_body_check")
	Equal(value[int](c, "SELECT 1"), 1)
}

func caseBatch() {
	c := connect("DATABASE")
	defer c.Close(ctx)
	batch := &pgx.Batch{}
	for n := 0; n < 300; n++ {
		batch.Queue("INSERT INTO "+Table+" VALUES ($1, 1, $2)", n, fmt.Sprint("row ", n))
		batch.Queue("SELECT $1::int + 1", n)
	}
	results := c.SendBatch(ctx, batch)
	for n := 0; n < 300; n++ {
		_, err := results.Exec()
		Must(err)
		var next int
		Must(results.QueryRow().Scan(&next))
		Equal(next, n+1)
	}
	Must(results.Close())
	// A batch is one transaction: an error in it undoes all.
	batch = &pgx.Batch{}
	batch.Queue("DELETE FROM " + Table)
	batch.Queue("SELECT 1 / $1::int", 0)
	batch.Queue("SELECT 1")
	fails(c.SendBatch(ctx, batch).Close(), "22012")
	Equal(exec(c, "DELETE FROM "+Table), "DELETE 300")
	// A pipeline with syncs of its own.
	pipeline := c.PgConn().StartPipeline(ctx)
	for _, sql := range []string{"SELECT 1", "SELECT 1 / 0", "SELECT 3"} {
		pipeline.SendQueryParams(sql, nil, nil, nil, nil)
		Must(pipeline.Sync())
	}
	var seen string
	for {
		found, err := pipeline.GetResults()
		if err != nil {
			seen += fails(err, "22012").Code + " "
			continue
		}
		if found == nil {
			break
		}
		if reader, is := found.(*pgconn.ResultReader); is {
			result := reader.Read()
			if result.Err != nil {
				seen += fails(result.Err, "22012").Code + " "
				continue
			}
			seen += string(result.Rows[0][0]) + " "
		}
	}
	Must(pipeline.Close())
	Equal(seen, "1 22012 3 ")
}

func caseCopy() {
	c := connect("DATABASE")
	defer c.Close(ctx)
	rows := [][]any{}
	for n := 0; n < 3000; n++ {
		rows = append(rows, []any{int64(n), int32(1), fmt.Sprint("line ", n)})
	}
	count, err := c.CopyFrom(ctx, pgx.Identifier{Table}, []string{"id", "who", "body"}, pgx.CopyFromRows(rows))
	Must(err)
	Equal(count, int64(3000))
	_, err = c.CopyFrom(ctx, pgx.Identifier{Table}, []string{"id", "who", "body"},
		pgx.CopyFromRows([][]any{{int64(9000), int32(1), "refused"}}))
	fails(err, "23514")
	Equal(exec(c, "DELETE FROM "+Table), "DELETE 3000")
}

func caseCancel() {
	c := connect("DATABASE")
	defer c.Close(ctx)
	// pgx gives a connection up when its context ends; the protocol's cancel request keeps it.
	done := make(chan error, 1)
	go func() {
		time.Sleep(300 * time.Millisecond)
		done <- c.PgConn().CancelRequest(ctx)
	}()
	failsExec(c, "57014", "SELECT pg_sleep(30)")
	Must(<-done)
	Equal(value[int](c, "SELECT 1"), 1)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := c.Exec(short, "SELECT pg_sleep(30)")
	Equal(errors.Is(err, context.DeadlineExceeded), true)
}

func caseListen() {
	listener, c := connect("DATABASE"), connect("DATABASE")
	defer listener.Close(ctx)
	defer c.Close(ctx)
	exec(listener, "LISTEN "+Table)
	exec(c, "SELECT pg_notify($1, 'hello')", Table)
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	heard, err := listener.WaitForNotification(limited)
	Must(err)
	Equal(heard.Payload, "hello")
}

func caseMany() {
	config, err := pgxpool.ParseConfig(URL("DATABASE", ""))
	Must(err)
	config.MaxConns = Clients
	pool, err := pgxpool.NewWithConfig(ctx, config)
	Must(err)
	defer pool.Close()
	Parallel(func(who int) {
		for turn := 0; turn < Rounds; turn++ {
			id, body := who*1000+turn, fmt.Sprint(who, " ", turn)
			tx, err := pool.Begin(ctx)
			Must(err)
			exec(tx, "INSERT INTO "+Table+" VALUES ($1, $2, $3)", id, who, body)
			Equal(value[string](tx, "SELECT body FROM "+Table+" WHERE id = $1", id), body)
			Must(tx.Commit(ctx))
		}
	})
}

func caseSharded() {
	c := connect("SHARDED")
	defer c.Close(ctx)
	for id := 1; id <= 20; id++ {
		Equal(value[string](c, "SELECT name FROM users WHERE id = $1", id), fmt.Sprintf("user %04d", id))
		Equal(value[int](c, "SELECT id FROM users ORDER BY id DESC LIMIT $1", 1), 200)
	}
	tx, err := c.Begin(ctx)
	Must(err)
	batch := &pgx.Batch{}
	for id := 501; id <= 520; id++ {
		batch.Queue("INSERT INTO users (id, name) VALUES ($1, 'batch')", id)
	}
	Must(tx.SendBatch(ctx, batch).Close())
	Must(tx.Commit(ctx))
	Equal(exec(c, "DELETE FROM users WHERE id > $1", 500), "DELETE 20")
}

func main() {
	Run("connect", caseConnect)
	Run("types", caseTypes)
	Run("prepared", casePrepared)
	Run("transactions", caseTransactions)
	Run("errors", caseErrors)
	Run("batch", caseBatch)
	Run("copy", caseCopy)
	Run("cancel", caseCancel)
	Run("listen", caseListen)
	Run("many", caseMany)
	Run("sharded", caseSharded)
}
