// Command copse is all of copse in one binary: the server for real use, a development server with
// sample tenants, and the command line that administers either over HTTP.
//
// The commands are made by constructor functions on one app value, which carries arguments,
// environment and streams: nothing below main reads the process's own, so that a test runs the very
// same program.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
