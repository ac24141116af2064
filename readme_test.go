package copse_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// consoleStep is one "$ command" of a console block, with the lines that must follow.
type consoleStep struct {
	line    int
	command string
	want    []string
}

// consoleSteps reads the ```console blocks of a page. A command goes on in lines that start with "> ".
func consoleSteps(page string) []consoleStep {
	var steps []consoleStep
	inside := false
	for i, line := range strings.Split(page, "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case !inside:
		case strings.HasPrefix(line, "$ "):
			steps = append(steps, consoleStep{line: i + 1, command: line[2:]})
		case strings.HasPrefix(line, "> ") && len(steps) > 0 && len(steps[len(steps)-1].want) == 0:
			steps[len(steps)-1].command += "\n" + line[2:]
		case len(steps) > 0:
			steps[len(steps)-1].want = append(steps[len(steps)-1].want, line)
		}
	}
	return steps
}

// outputPattern turns the lines of a page into a pattern: "..." in a line stands for anything in that
// line, a line that is nothing else for any number of lines, and runs of spaces for each other.
func outputPattern(lines []string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, line := range lines {
		if strings.TrimSpace(line) == "..." {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		parts := strings.Split(strings.TrimRight(line, " "), "...")
		for i, part := range parts {
			words := regexp.MustCompile(` +`).Split(part, -1)
			for j := range words {
				words[j] = regexp.QuoteMeta(words[j])
			}
			parts[i] = strings.Join(words, ` +`)
		}
		b.WriteString(strings.Join(parts, `.*`) + ` *\n`)
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

// console is a shell that a page's commands are typed into, one after the other.
type console struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func startConsole(t *testing.T, dir string, env []string) *console {
	t.Helper()
	cmd := exec.Command("bash", "--norc", "--noprofile")
	cmd.Dir, cmd.Env = dir, env
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &console{in: in, out: bufio.NewReader(out)}
}

const endOfOutput = "---- end of output ----"

func (c *console) run(t *testing.T, command string) string {
	t.Helper()
	fmt.Fprintf(c.in, "%s\necho; echo '%s'\n", command, endOfOutput)
	var got strings.Builder
	for {
		line, err := c.out.ReadString('\n')
		if err != nil {
			t.Fatalf("the shell ended after %q: %v\n%s", command, err, got.String())
		}
		if strings.TrimSpace(line) == endOfOutput {
			break
		}
		got.WriteString(line)
	}
	return strings.TrimSuffix(got.String(), "\n")
}

// startDev runs `copse dev` on a free port and returns the two variables it prints for the shell.
func startDev(t *testing.T, binary string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
	cmd := exec.CommandContext(ctx, binary, "dev", "--listen", "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	started := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var env []string
	for len(env) < 2 && lines.Scan() {
		if assignment, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "export COPSE_"); ok {
			env = append(env, "COPSE_"+assignment)
		}
	}
	if len(env) < 2 {
		t.Fatalf("copse dev ended without printing its variables: %s", stderr.String())
	}
	t.Logf("copse dev was up after %v", time.Since(started))
	drained := make(chan struct{})
	go func() {
		for lines.Scan() {
		}
		close(drained)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		<-drained
		if err := cmd.Wait(); err != nil {
			t.Errorf("copse dev did not stop cleanly on SIGINT: %v\n%s", err, stderr.String())
		}
		cancel()
	})
	return env
}

// buildCopse makes the program as it is released, static, and an environment with it in the path.
func buildCopse(t *testing.T) (binary string, env []string) {
	t.Helper()
	dir := t.TempDir()
	binary = filepath.Join(dir, "copse")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/copse")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary, append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "LC_ALL=C")
}

// The README is run as it is written: its commands, in order, in one shell, against a real server.
func TestReadme(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	binary, env := buildCopse(t)
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var shell *console
	ran := 0
	for _, step := range consoleSteps(string(page)) {
		switch {
		case strings.HasPrefix(step.command, "make test"):
			continue // this is it
		case step.command == "go run ./cmd/copse dev":
			env = append(env, startDev(t, binary)...)
			// The commands work in a directory of their own; the paths they name are the project's.
			shell = startConsole(t, t.TempDir(), env)
			shell.run(t, "cp -r "+root+"/examples .")
			continue
		case strings.HasPrefix(step.command, "export COPSE_"), strings.HasPrefix(step.command, "go build"):
			continue // done above, with a free port and a temporary directory
		case shell == nil:
			t.Fatalf("README.md:%d: the first command must start copse dev", step.line)
		}
		got := shell.run(t, step.command)
		if !outputPattern(step.want).MatchString(got) {
			t.Errorf("README.md:%d: $ %s\ngot:\n%s\nwant:\n%s", step.line, step.command, got, strings.Join(step.want, "\n"))
		}
		ran++
	}
	if ran < 10 {
		t.Errorf("only %d commands of the README were run", ran)
	}
}

// The operations page's walk through a server's life, run as it is written but for its ports.
func TestOperations(t *testing.T) {
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, env := buildCopse(t)
	text := string(page)
	for _, port := range []string{"127.0.0.1:8420", "127.0.0.1:8421"} {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(text, port, free.Addr().String())
		if err := free.Close(); err != nil {
			t.Fatal(err)
		}
	}
	shell := startConsole(t, t.TempDir(), env)
	ran, began := 0, time.Now()
	for _, step := range consoleSteps(text) {
		got := shell.run(t, step.command)
		if !outputPattern(step.want).MatchString(got) {
			t.Errorf("docs/operations.md:%d: $ %s\ngot:\n%s\nwant:\n%s", step.line, step.command, got, strings.Join(step.want, "\n"))
			break // what follows builds on it
		}
		ran++
		t.Logf("%v %s", time.Since(began), step.command)
	}
	shell.run(t, "kill %% 2> /dev/null; wait")
	if ran < 40 && !t.Failed() {
		t.Errorf("only %d commands of the page were run", ran)
	}
}

// The comparison must be able to fail.
func TestOutputPattern(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"a b", "a   b\n", true},
		{"a b", "ab\n", false},
		{"id ... end", "id 42x end\n", true},
		{"id ... end", "id 42x\n end\n", false},
		{"a\n...\nz", "a\nb\nc\nz\n", true},
		{"a\n...\nz", "a\nb\n", false},
		{"ALLOW", "DENY\n", false},
		{"ALLOW", "ALLOW\nDENY\n", false},
	} {
		if got := outputPattern(strings.Split(c.want, "\n")).MatchString(c.got); got != c.ok {
			t.Errorf("%q against %q: %v", c.got, c.want, got)
		}
	}
}
