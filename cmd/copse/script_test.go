package main

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts in testdata run the very program: the test binary, called as copse, is main.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"copse": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("COPSE_DRAIN_DELAY", "0s") // no load balancer has to notice
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":   exits,
			"waitfor": waitFor,
			"capture": capture,
			"json":    jsonMember,
		},
	})
}

// exits CODE COMMAND... runs a command that must end with the code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if want, err := strconv.Atoi(args[0]); err != nil || code != want {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// waitfor FILE REGEXP [VAR] waits until a program in the background has written what matches, and
// puts the first group into a variable.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: waitfor FILE REGEXP [VAR]")
	}
	want, err := regexp.Compile(`(?m)` + args[1])
	ts.Check(err)
	var text []byte
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		text, _ = os.ReadFile(ts.MkAbs(args[0])) // it may not exist yet
		match := want.FindSubmatch(text)
		if match == nil {
			continue
		}
		if len(args) == 3 {
			ts.Setenv(args[2], string(match[1]))
		}
		return
	}
	ts.Fatalf("%s never had %s:\n%s", args[0], args[1], text)
}

// capture VAR REGEXP puts the first group of the last command's standard output into a variable.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture VAR REGEXP")
	}
	match := regexp.MustCompile(`(?m)` + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if match == nil {
		ts.Fatalf("the output has no match of %s", args[1])
	}
	ts.Setenv(args[0], match[1])
}

// json PATH WANT looks into the last command's standard output: tenants.0.state is a member's
// element's member, and len counts the elements.
func jsonMember(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] json PATH WANT")
	}
	var at any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &at))
	for step := range strings.SplitSeq(args[0], ".") {
		switch v := at.(type) {
		case map[string]any:
			at = v[step]
		case []any:
			i, err := strconv.Atoi(step)
			switch {
			case step == "len":
				at = len(v)
			case err != nil || i >= len(v):
				ts.Fatalf("%s: no element %s", args[0], step)
			default:
				at = v[i]
			}
		default:
			at = nil
		}
	}
	text, err := json.Marshal(at)
	ts.Check(err)
	got := strings.Trim(string(text), `"`)
	if (got == args[1]) == neg {
		ts.Fatalf("%s is %s", args[0], got)
	}
}
