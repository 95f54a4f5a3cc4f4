// Package cases is what the Go programs share: where to connect, and running the cases.
package cases

import (
	"fmt"
	"net/url"
	"os"
	"reflect"
	"runtime/debug"
)

const (
	Clients = 50
	Rounds  = 20
	Text    = "Grüße, 日本語 🐘 'quoted' \"double\" back\\slash"
	UUID    = "123e4567-e89b-12d3-a456-426614174000"
	JSON    = `{"a": [1, 2.5, null, "ä"]}`
	Numeric = "12345678901234567890.123456789"
)

var Table = os.Getenv("PGSHUNT_TABLE")

// URL says where to connect; the database is the variable's name behind PGSHUNT_.
func URL(database, password string) string {
	if password == "" {
		password = os.Getenv("PGSHUNT_PASSWORD")
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(os.Getenv("PGSHUNT_USER"), password),
		Host: os.Getenv("PGSHUNT_HOST") + ":" + os.Getenv("PGSHUNT_PORT"), Path: os.Getenv("PGSHUNT_" + database),
		RawQuery: "connect_timeout=20&application_name=matrix",
	}
	return u.String()
}

// Must ends the case if there was an error.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Equal ends the case if the values differ.
func Equal(found, wanted any) {
	if !reflect.DeepEqual(found, wanted) {
		panic(fmt.Sprintf("found %v instead of %v", found, wanted))
	}
}

// Run runs one case and prints its line.
func Run(name string, function func()) {
	defer func() {
		if problem := recover(); problem != nil {
			fmt.Printf("failed %s: %v\n%s", name, problem, debug.Stack())
		} else {
			fmt.Println("ok " + name)
		}
	}()
	function()
}

// Parallel runs all clients at once and ends the case with the first problem.
func Parallel(work func(who int)) {
	problems := make(chan any, Clients)
	for who := 0; who < Clients; who++ {
		go func(who int) {
			defer func() { problems <- recover() }()
			work(who)
		}(who)
	}
	for who := 0; who < Clients; who++ {
		if problem := <-problems; problem != nil {
			panic(problem)
		}
	}
}
