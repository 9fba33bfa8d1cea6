// Command cmd prints the golden entries that a uapi.go needs, one on each line
// and without values. scripts/gen-abi.sh makes a C program from them.
package main

import (
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/scripts/abicheck"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: cmd FILE")
		os.Exit(2)
	}
	names, err := abicheck.Names(os.Args[1])
	if err != nil {
		fmt.Fprintf(os.Stderr, "abicheck: error: %v\n", err)
		os.Exit(1)
	}
	for _, n := range names {
		fmt.Println(n)
	}
}
