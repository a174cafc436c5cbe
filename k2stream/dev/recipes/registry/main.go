// A schema registry for tests and development: franz-go's srfake on the address given; schemas live in memory.
package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: registry HOST:PORT")
		os.Exit(2)
	}
	registry := srfake.NewRegistry(srfake.WithGlobalCompat(sr.CompatBackward))
	fmt.Fprintln(os.Stderr, http.ListenAndServe(os.Args[1], registry.Handler()))
	os.Exit(1)
}
