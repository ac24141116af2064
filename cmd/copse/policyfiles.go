package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/policyfiles"
)

// localPolicy is one policy of the user's files, or one template: what is sent, and where it came from, so
// that an answer about it can be shown in the file it was written in. The text is as it stands in the file,
// with the comments before it; source is shared by all policies of a file.
type localPolicy struct {
	name         string
	policy       *engine.Policy         // exactly one of these three
	template     *engine.Template       //
	link         *policyfiles.NamedLink // has no text; line and column are where it begins
	text         string
	file         string
	line, column int    // where text starts in the file
	source       []byte // the whole file
}

// at makes a finding out of a position inside the policy's text; line 0 is the policy as such. A link is
// found where it begins: positions of its findings are its template's.
func (p *localPolicy) at(line, column int, message string) finding {
	if p.link != nil {
		line = 0
	}
	line, column = shift(p.line, p.column, line, column)
	return newFinding(p.file, p.source, line, column, message)
}

// readPolicies reads every policy of the files and directories named, "-" being standard input. All
// that is wrong with the files is told at once, in one error.
func readPolicies(paths []string, stdin io.Reader) ([]localPolicy, error) {
	files, err := policyFiles(paths)
	if err != nil {
		return nil, err
	}
	var all []localPolicy
	var findings []finding
	// A file that can't be read ends it; one that does not parse does not, so that all findings are there at
	// once.
	for _, file := range files {
		text, err := readFile(file, stdin)
		if err != nil {
			return nil, failf("%w", err)
		}
		// A .json file that is named is taken for one of links, whatever its name.
		read := splitPolicies
		if filepath.Ext(file) == ".json" {
			read = readLinks
		}
		policies, bad := read(file, text)
		all, findings = append(all, policies...), append(findings, bad...)
	}
	// Over all files: names are the policy store's, and no file's.
	findings = append(findings, duplicateNames(all)...)
	if len(findings) > 0 {
		return nil, &failure{code: exitError, message: count(len(findings), "problem") + " in " + strings.Join(paths, ", "), findings: findings}
	}
	// Files without a policy put nothing; with --replace they would delete everything.
	if len(all) == 0 {
		return nil, failf("no policy in %s", strings.Join(paths, ", "))
	}
	return all, nil
}

// policyFiles lists the .cedar and links files below the directories, and the files named as they are.
// Hidden directories are left out: mounted configuration keeps its older versions in such. A directory is
// read in the order of its names. An error when one has none, and when a name is no file.
func policyFiles(paths []string) ([]string, error) {
	var files []string
	for _, root := range paths {
		info, err := os.Stat(root)
		switch {
		case root == "-":
			files = append(files, root)
			continue
		case err != nil:
			return nil, failf("%w", err)
		case !info.IsDir():
			files = append(files, root)
			continue
		}
		// A directory without policies was probably not the one that was meant.
		before := len(files)
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			// What is named itself is read, hidden or not.
			hidden := strings.HasPrefix(d.Name(), ".") && path != root
			if d.IsDir() && hidden {
				return filepath.SkipDir
			}
			if !d.IsDir() && !hidden && (filepath.Ext(path) == ".cedar" || d.Name() == policyfiles.LinksFile) {
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			return nil, failf("%w", err)
		}
		if len(files) == before {
			return nil, failf("no .cedar file in directory %s", root)
		}
	}
	return files, nil
}

// stdinName stands for standard input where a file's name is shown.
const stdinName = "<stdin>"

// readFile reads a file, or stdin for "-", and stops reading where no request could carry the content any
// more. Its error has no exit code: callers give it theirs.
func readFile(path string, stdin io.Reader) ([]byte, error) {
	source := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		source = f
	}
	text, err := io.ReadAll(io.LimitReader(source, copse.MaxContentsBytes+1))
	if err != nil {
		return nil, err
	}
	// One byte more was read than may be sent.
	if len(text) > copse.MaxContentsBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes, the most that one request may carry", path, copse.MaxContentsBytes)
	}
	return text, nil
}

// readLinks reads a file of links. Those that are right are returned beside findings about the others.
// Whether there is a template of the name is asked later.
func readLinks(file string, text []byte) ([]localPolicy, []finding) {
	links, err := policyfiles.ParseLinks(file, text)
	var findings []finding
	if err != nil {
		findings = findingsOf(err, file, text)
	}
	policies := make([]localPolicy, len(links))
	for i := range links {
		l := &links[i]
		policies[i] = localPolicy{name: l.Name, link: l, file: file, line: l.Line, column: l.Column, source: text}
	}
	return policies, findings
}

// splitPolicies parses one file and names its policies and templates: by @id, else, for the only one of a
// file, by the file's stem. Texts are cut as they stand, with the comments before them, so that what is put
// is what somebody wrote. When the file does not parse there are findings only; when names are wrong, the
// policies whose names are right come beside them.
func splitPolicies(file string, text []byte) ([]localPolicy, []finding) {
	shownName := file
	if file == "-" {
		shownName = stdinName
	}
	parsed, err := engine.ParseDocument(shownName, text)
	if err != nil {
		return nil, findingsOf(err, shownName, text)
	}
	stem := strings.TrimSuffix(filepath.Base(file), ".cedar")
	var policies []localPolicy
	var findings []finding
	rest := 0 // texts follow one another, with nothing but space between
	for _, statement := range parsed {
		// One of policy and template is nil.
		p := localPolicy{policy: statement.Policy, template: statement.Template, text: statement.Text(), file: shownName, source: text}
		// A text is cut out of the file as it stands there, so it is found in it, from the last one's end on.
		rest += max(bytes.Index(text[rest:], []byte(p.text)), 0)
		p.line, p.column = position(text, rest)
		rest += len(p.text)
		// An annotation wins over the file's name.
		id, annotated := statement.Annotation("id")
		switch {
		case annotated:
			p.name = id
		case len(parsed) > 1:
			findings = append(findings, p.start(`several policies in one file need a name each: put @id("...") before this one`))
			continue
		case file == "-":
			findings = append(findings, p.start(`a policy from standard input needs a name: put @id("...") before it`))
			continue
		default:
			p.name = stem
		}
		// The name may come from the file's name, which nobody had chosen as one.
		if err := copse.ValidateName(p.name); err != nil {
			findings = append(findings, p.start(err.Error()))
			continue
		}
		policies = append(policies, p)
	}
	return policies, findings
}

// start points at the policy's first token rather than at the comment above it. Editors jump there, and a
// comment above a policy may be long.
func (p *localPolicy) start(message string) finding {
	offset := 0
	for {
		rest := p.text[offset:]
		trimmed := strings.TrimLeft(rest, " \t\r\n")
		// Space between comments is passed over with them.
		offset += len(rest) - len(trimmed)
		if !strings.HasPrefix(trimmed, "//") {
			break
		}
		// A text may have more than one comment before its policy.
		end := strings.IndexByte(trimmed, '\n')
		if end < 0 {
			break
		}
		offset += end
	}
	line, column := position([]byte(p.text), offset)
	return p.at(line, column, message)
}

// duplicateNames finds the policies, links among them, and the templates that share a name with another.
func duplicateNames(policies []localPolicy) []finding {
	var findings []finding
	// Policies and templates have names apart from each other.
	first := map[bool]map[string]*localPolicy{true: {}, false: {}}
	for i := range policies {
		p, kind := &policies[i], "policy"
		if p.template != nil {
			kind = "template"
		}
		names := first[p.template != nil]
		if other, taken := names[p.name]; taken {
			// The first keeps the name; every later one is a finding that points at it.
			place := other.start("")
			findings = append(findings, p.start(fmt.Sprintf("the name %q is taken by the %s at %s", p.name, kind, place.place())))
			continue
		}
		names[p.name] = p
	}
	return findings
}

// findingsOf shows an engine error in the text it is about, a finding for each of its fields. An error
// without fields is one finding about the file as such.
func findingsOf(err error, file string, text []byte) []finding {
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || len(e.Fields) == 0 {
		return []finding{{File: file, Message: err.Error()}}
	}
	findings := make([]finding, 0, len(e.Fields))
	for _, f := range e.Fields {
		findings = append(findings, newFinding(file, text, f.Line, f.Column, f.Message))
	}
	return sortFindings(findings)
}

// sortFindings orders findings as a person goes through files: by name, then from top to bottom. It sorts in
// place.
func sortFindings(findings []finding) []finding {
	slices.SortStableFunc(findings, func(a, b finding) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return findings
}

// count is a number with its noun, which takes a plain s.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
