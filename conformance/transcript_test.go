package conformance

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/copse-authz/copse/copsetest"
)

// The files in testdata show, for each kind of error, what goes over the wire: lines after ">" are
// sent, lines after "<" come back. $NAME stands for a text that is the same wherever the name is
// used: $ROOT is the root key's bearer credential; another name, seen first in an answer, is taken
// from there. "..." in an answer stands for anything. A file that begins with "plan: NAME" runs on a
// server whose policy stores are on that plan.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	shown := map[string]bool{}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var options []copsetest.Option
			if plan, ok := strings.CutPrefix(firstLine(string(text)), "plan: "); ok {
				options = append(options, copsetest.Plan(plan))
			}
			srv := copsetest.Start(t, options...)
			names := map[string]string{"ROOT": srv.RootCredential, "ROOTID": srv.AccessKeyID}
			steps := transcriptSteps(string(text))
			if len(steps) == 0 {
				t.Fatal("nothing is said in it")
			}
			for _, step := range steps {
				step.play(t, srv.URL, names)
				for _, line := range step.answer {
					if thrown, ok := strings.CutPrefix(line, "X-Amzn-Errortype: "); ok {
						shown[thrown] = true
					}
				}
			}
		})
	}
	for name, s := range loadModel(t).Shapes {
		// What only a broken copse answers is shown by internal/avp's tests.
		if s.Type == "structure" && strings.HasSuffix(name, "Exception") && name != "InternalServerException" && !shown[name] {
			t.Errorf("no transcript shows %s; shown are %v", name, slices.Sorted(maps.Keys(shown)))
		}
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// step is one request and its answer, in lines.
type step struct {
	line            int
	request, answer []string
}

func transcriptSteps(text string) []step {
	var steps []step
	answered := true
	for i, line := range strings.Split(text, "\n") {
		said, isRequest := strings.CutPrefix(line, ">")
		heard, isAnswer := strings.CutPrefix(line, "<")
		switch {
		case isRequest:
			if answered {
				steps = append(steps, step{line: i + 1})
				answered = false
			}
			last := &steps[len(steps)-1]
			last.request = append(last.request, strings.TrimPrefix(said, " "))
		case isAnswer && len(steps) > 0:
			answered = true
			last := &steps[len(steps)-1]
			last.answer = append(last.answer, strings.TrimPrefix(heard, " "))
		}
	}
	return steps
}

var variable = regexp.MustCompile(`\$[A-Z]+`)

var repetition = regexp.MustCompile(`"(.)"x(\d+)`)

// repeated writes out the "a"x100 of a transcript: nobody wants to read a long text. It sees the line as
// it is in the file, because an id put into it may look like that.
func repeated(t *testing.T, line string) string {
	t.Helper()
	times := repetition.FindStringSubmatch(line)
	if times == nil {
		return line
	}
	n, err := strconv.Atoi(times[2])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(line, times[0], `"`+strings.Repeat(times[1], n)+`"`, 1)
}

func (s *step) play(t *testing.T, url string, names map[string]string) {
	t.Helper()
	var said []string
	for _, line := range s.request {
		said = append(said, variable.ReplaceAllStringFunc(repeated(t, line), func(name string) string {
			v, known := names[name[1:]]
			if !known {
				t.Fatalf("line %d: %s is not known yet", s.line, name)
			}
			return v
		}))
	}
	method, path, _ := strings.Cut(said[0], " ")
	head, body := said[1:], ""
	if end := slices.Index(said, ""); end > 0 {
		head, body = said[1:end], strings.Join(said[end+1:], "\n")
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range head {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := heard(resp, bytes.TrimSpace(text), s.answer)
	want, captured := answerPattern(strings.Join(s.answer, "\n"), names)
	match := want.FindStringSubmatch(got)
	if match == nil {
		t.Fatalf("line %d: the answer is\n%s\nwant\n%s", s.line, got, strings.Join(s.answer, "\n"))
	}
	for i, name := range captured {
		names[name] = match[i+1]
	}
}

// heard writes an answer as the file does: its status, those headers that the file shows, its body.
func heard(resp *http.Response, text []byte, shown []string) string {
	lines := []string{fmt.Sprint(resp.StatusCode)}
	for _, line := range shown[1:] {
		if line == "" {
			break
		}
		name, _, _ := strings.Cut(line, ": ")
		lines = append(lines, name+": "+resp.Header.Get(name))
	}
	if slices.Contains(shown, "") {
		lines = append(lines, "", string(text))
	}
	return strings.Join(lines, "\n")
}

// answerPattern makes a pattern of an expected answer, and lists the names that its groups are for.
func answerPattern(text string, names map[string]string) (*regexp.Regexp, []string) {
	var captured []string
	pattern := regexp.QuoteMeta(text)
	pattern = strings.ReplaceAll(pattern, `\.\.\.`, `(?s:.*?)`)
	pattern = regexp.MustCompile(`\\\$[A-Z]+`).ReplaceAllStringFunc(pattern, func(name string) string {
		name = name[2:]
		if v, known := names[name]; known {
			return regexp.QuoteMeta(v)
		}
		if slices.Contains(captured, name) {
			return `[^"]*`
		}
		captured = append(captured, name)
		return `([^"\n]+)`
	})
	return regexp.MustCompile(`\A` + pattern + `\z`), captured
}
