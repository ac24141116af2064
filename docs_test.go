package copse_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/copse-authz/copse/rls"
)

// A law is only as good as its test: the pages that name tests name ones that exist.
func TestPagesNameTestsThatExist(t *testing.T) {
	defined := map[string]bool{}
	declaration := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declaration.FindAllSubmatch(source, -1) {
			defined[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	patches, err := filepath.Glob("mutants/*.patch")
	if err != nil || len(patches) < 8 {
		t.Fatalf("%d mutants (%v)", len(patches), err)
	}
	named := 0
	for _, page := range append(patches, "docs/security.md", "DESIGN.md", "docs/performance.md", "docs/rls.md", "docs/pep.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(text), -1) {
			named++
			if !defined[name] {
				t.Errorf("%s names %s, which is no test", page, name)
			}
		}
	}
	if named < 30 {
		t.Errorf("only %d tests are named", named)
	}
}

// Links between the pages lead somewhere.
func TestLinksOfThePages(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	checked := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "mutants/*.md", "examples/*/*.md"} {
		pages, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range link.FindAllStringSubmatch(string(text), -1) {
				checked++
				if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
					t.Errorf("%s: %v", page, err)
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d links found", checked)
	}
}

// The page of the audit lists what the audit looks for, in its words.
func TestRLSPageListsTheChecks(t *testing.T) {
	page, err := os.ReadFile("docs/rls.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range rls.Checks() {
		if row := "| `" + c.Name + "` | " + c.Finds + " |\n"; !strings.Contains(string(page), row) {
			t.Errorf("docs/rls.md has no row %s", row)
		}
	}
	if rows := strings.Count(string(page), "\n| `"); rows != len(rls.Checks()) {
		t.Errorf("docs/rls.md has %d rows for %d checks", rows, len(rls.Checks()))
	}
}
