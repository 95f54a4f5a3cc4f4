// lib/pq with database/sql: unnamed and named statements, binary parameters, COPY, cancel by context, its listener.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/lib/pq"

	. "pgshunt/tests/drivers/cases"
)

var ctx = context.Background()

// lib/pq insists on TLS unless told otherwise.
const noTLS = "&sslmode=disable"

// One connection: reads see what it wrote, as read-your-writes is kept for each client connection.
func open(database, more string) *sql.DB {
	db, err := sql.Open("postgres", URL(database, "")+noTLS+more)
	Must(err)
	db.SetMaxOpenConns(1)
	return db
}

type querier interface {
	QueryRow(query string, arguments ...any) *sql.Row
	Exec(query string, arguments ...any) (sql.Result, error)
}

func value[T any](c querier, query string, arguments ...any) T {
	var found T
	Must(c.QueryRow(query, arguments...).Scan(&found))
	return found
}

func exec(c querier, query string, arguments ...any) int64 {
	result, err := c.Exec(query, arguments...)
	Must(err)
	count, err := result.RowsAffected()
	Must(err)
	return count
}

func fails(err error, state string) *pq.Error {
	var problem *pq.Error
	if !errors.As(err, &problem) {
		panic(fmt.Sprintf("no error %s but %v", state, err))
	}
	Equal(string(problem.Code), state)
	return problem
}

func failsExec(c querier, state, query string, arguments ...any) *pq.Error {
	_, err := c.Exec(query, arguments...)
	return fails(err, state)
}

func caseConnect() {
	db := open("DATABASE", "")
	defer db.Close()
	Must(db.Ping())
	Equal(value[string](db, "SHOW application_name"), "matrix")
	wrong, err := sql.Open("postgres", URL("DATABASE", "wrong")+noTLS)
	Must(err)
	defer wrong.Close()
	fails(wrong.Ping(), "28P01")
}

func caseTypes() {
	for _, more := range []string{"", "&binary_parameters=yes"} {
		db := open("DATABASE", more)
		Equal(value[int](db, "SELECT $1::int", 2147483647), 2147483647)
		Equal(value[int64](db, "SELECT $1::bigint", int64(-9007199254740993)), int64(-9007199254740993))
		Equal(value[string](db, "SELECT $1::numeric", Numeric), Numeric)
		Equal(value[string](db, "SELECT $1::text", Text), Text)
		Equal(value[[]byte](db, "SELECT $1::bytea", []byte("\x00\x01\xff\\'")), []byte("\x00\x01\xff\\'"))
		Equal(value[bool](db, "SELECT $1::bool", true), true)
		at := time.Date(2026, 2, 3, 4, 5, 6, 789012000, time.UTC)
		Equal(value[time.Time](db, "SELECT $1::timestamptz", at).UTC(), at)
		Equal(value[string](db, "SELECT $1::uuid", UUID), UUID)
		Equal(value[string](db, "SELECT $1::jsonb", JSON), JSON)
		Equal(value[pq.Int64Array](db, "SELECT $1::int[]", pq.Array([]int{1, 2, 3})), pq.Int64Array{1, 2, 3})
		Equal(value[sql.NullString](db, "SELECT $1::text", nil).Valid, false)
		Must(db.Close())
	}
}

func casePrepared() {
	a, b := open("DATABASE", ""), open("DATABASE", "")
	defer a.Close()
	defer b.Close()
	for turn := 0; turn < 20; turn++ {
		inA, err := a.Begin()
		Must(err)
		inB, err := b.Begin()
		Must(err)
		forA, err := inA.Prepare("SELECT 'a' || $1::int")
		Must(err)
		forB, err := inB.Prepare("SELECT 'b' || $1::int")
		Must(err)
		for again := 0; again < 3; again++ {
			var fromA, fromB string
			Must(forA.QueryRow(turn).Scan(&fromA))
			Must(forB.QueryRow(turn).Scan(&fromB))
			Equal(fromA+fromB, fmt.Sprint("a", turn, "b", turn))
		}
		if turn%2 == 0 {
			Must(inA.Commit())
			Must(inB.Commit())
		} else {
			Must(inB.Commit())
			Must(inA.Commit())
		}
	}
	kept, err := a.Prepare("SELECT $1::int * 2")
	Must(err)
	for turn := 0; turn < 20; turn++ {
		var found int
		Must(kept.QueryRow(turn).Scan(&found))
		Equal(found, turn*2)
	}
	Must(kept.Close())
}

func caseTransactions() {
	db := open("DATABASE", "")
	defer db.Close()
	tx, err := db.Begin()
	Must(err)
	exec(tx, "INSERT INTO "+Table+" VALUES ($1, 1, 'kept')", 1)
	exec(tx, "SAVEPOINT s")
	failsExec(tx, "23505", "INSERT INTO "+Table+" VALUES ($1, 1, 'twice')", 1)
	failsExec(tx, "25P02", "SELECT 1")
	exec(tx, "ROLLBACK TO s")
	Must(tx.Commit())
	tx, err = db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	Must(err)
	exec(tx, "UPDATE "+Table+" SET body = 'gone'")
	Must(tx.Rollback())
	Equal(value[string](db, "SELECT body FROM "+Table+" WHERE id = $1", 1), "kept")
	Equal(exec(db, "DELETE FROM "+Table), int64(1))
}

func caseErrors() {
	db := open("DATABASE", "")
	defer db.Close()
	Equal(failsExec(db, "42P01", "SELECT * FROM missing_table").Position, "15")
	failsExec(db, "22012", "SELECT 1 / $1::int", 0)
	Equal(failsExec(db, "23514", "INSERT INTO "+Table+" VALUES ($1, 1, 'refused')", 1).Constraint, Table+"_body_check")
	Equal(value[int](db, "SELECT 1"), 1)
}

func caseCopy() {
	db := open("DATABASE", "")
	defer db.Close()
	tx, err := db.Begin()
	Must(err)
	statement, err := tx.Prepare(pq.CopyIn(Table, "id", "who", "body"))
	Must(err)
	for n := 0; n < 3000; n++ {
		_, err = statement.Exec(n, 1, fmt.Sprint("line ", n))
		Must(err)
	}
	_, err = statement.Exec()
	Must(err)
	Must(statement.Close())
	Must(tx.Commit())
	Equal(exec(db, "DELETE FROM "+Table), int64(3000))
}

func caseCancel() {
	db := open("DATABASE", "")
	defer db.Close()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := db.ExecContext(short, "SELECT pg_sleep(30)")
	if !errors.Is(err, context.DeadlineExceeded) {
		fails(err, "57014")
	}
	Equal(value[int](db, "SELECT 1"), 1)
}

func caseListen() {
	listener := pq.NewListener(URL("DATABASE", "")+noTLS, time.Second, time.Second, nil)
	defer listener.Close()
	Must(listener.Listen(Table))
	db := open("DATABASE", "")
	defer db.Close()
	exec(db, "SELECT pg_notify($1, 'hello')", Table)
	select {
	case heard := <-listener.Notify:
		Equal(heard.Extra, "hello")
	case <-time.After(20 * time.Second):
		panic("no notification")
	}
}

func caseMany() {
	db, err := sql.Open("postgres", URL("DATABASE", "")+noTLS)
	Must(err)
	defer db.Close()
	db.SetMaxIdleConns(Clients)
	Parallel(func(who int) {
		for turn := 0; turn < Rounds; turn++ {
			id, body := who*1000+turn, fmt.Sprint(who, " ", turn)
			tx, err := db.Begin()
			Must(err)
			exec(tx, "INSERT INTO "+Table+" VALUES ($1, $2, $3)", id, who, body)
			Equal(value[string](tx, "SELECT body FROM "+Table+" WHERE id = $1", id), body)
			Must(tx.Commit())
		}
	})
}

func caseSharded() {
	db := open("SHARDED", "")
	defer db.Close()
	for id := 1; id <= 20; id++ {
		Equal(value[string](db, "SELECT name FROM users WHERE id = $1", id), fmt.Sprintf("user %04d", id))
		Equal(value[int](db, "SELECT id FROM users ORDER BY id DESC LIMIT $1", 1), 200)
	}
	Equal(exec(db, "INSERT INTO users (id, name) VALUES ($1, 'a'), ($2, 'b')", 501, 502), int64(2))
	Equal(exec(db, "DELETE FROM users WHERE id > $1", 500), int64(2))
}

func main() {
	Run("connect", caseConnect)
	Run("types", caseTypes)
	Run("prepared", casePrepared)
	Run("transactions", caseTransactions)
	Run("errors", caseErrors)
	Run("copy", caseCopy)
	Run("cancel", caseCancel)
	Run("listen", caseListen)
	Run("many", caseMany)
	Run("sharded", caseSharded)
}
