package remote

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// What a directory holds: the settings and the list of everything in one file, the schema, and each
// policy and template as a .cedar file that can be read, compared and edited.
const (
	settingsFile = "policystore.json"
	schemaFile   = "schema.json"
	policyDir    = "policies"
	templateDir  = "templates"
)

// WriteDir writes contents into a directory that is made, or is there and empty. Conflict when
// something is in it. With an error what was written stays, and is no export: its settings are missing.
func WriteDir(dir string, contents *Contents) (err error) {
	if err := contents.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	// Old files among new ones would be read back as policies.
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return copse.Errorf(copse.Conflict, "%s is not empty: name a new directory", dir)
	}
	// No name from the contents leads out of the directory, whatever it holds.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	w := &writer{root: root, taken: map[string]bool{}}
	// The contents given are not changed: parts with their files go into a copy.
	out := *contents
	out.Templates, out.Policies = nil, nil
	for _, t := range contents.Templates {
		t.File = w.statement(templateDir, t.Name, t.ID, t.Statement)
		out.Templates = append(out.Templates, t)
	}
	for _, p := range contents.Policies {
		if p.TemplateID == "" {
			p.File = w.statement(policyDir, p.Name, p.ID, p.Statement)
		}
		out.Policies = append(out.Policies, p)
	}
	if contents.Schema != "" {
		w.file(schemaFile, contents.Schema)
	}
	// The order of members is fixed, so that two exports can be compared.
	text, err := json.Marshal(&out, jsontext.WithIndent("  "), json.Deterministic(true))
	if err != nil {
		return err
	}
	// Last, so that a directory that was not finished can't be taken for one.
	w.file(settingsFile, string(text)+"\n")
	return w.err
}

// writer keeps the first error.
type writer struct {
	root  *os.Root
	taken map[string]bool // in lower case: not every file system tells Q from q
	err   error
}

// statement writes a file named for the policy, and returns the path it got. Two names that differ in
// case, or in a slash, are two files.
func (w *writer) statement(dir, name, id, text string) string {
	stem := strings.TrimPrefix(name, "name/")
	if stem == "" {
		// A policy without a name is found by the id it had.
		stem = id
	}
	stem = strings.ReplaceAll(stem, "/", "_")
	file := path.Join(dir, stem+".cedar")
	for n := 2; w.taken[strings.ToLower(file)]; n++ {
		file = path.Join(dir, fmt.Sprintf("%s-%d.cedar", stem, n))
	}
	w.taken[strings.ToLower(file)] = true
	if err := w.root.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) && w.err == nil {
		w.err = err
	}
	w.file(file, text+"\n")
	return file
}

// file does nothing after an error.
func (w *writer) file(name, text string) {
	if w.err != nil {
		return
	}
	w.err = w.root.WriteFile(name, []byte(text), 0o644)
}

// ReadDir reads what WriteDir wrote, or somebody since. No file outside of the directory is read,
// whatever its settings name. The error is Invalid for settings that can't be contents; otherwise
// it names the file that can't be read.
func ReadDir(dir string) (contents *Contents, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	text, err := readFile(root, settingsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, copse.Errorf(copse.Invalid, "%s has no %s: is it a directory that an export wrote?", dir, settingsFile)
	}
	if err != nil {
		return nil, err
	}
	// A member that is misspelt would be a setting that is lost in silence.
	contents = new(Contents)
	if err := json.Unmarshal([]byte(text), contents, json.RejectUnknownMembers(true)); err != nil {
		return nil, copse.Errorf(copse.Invalid, "%s: %w", path.Join(dir, settingsFile), err)
	}
	// No schema is no error: not every policy store has one.
	if contents.Schema, err = readFile(root, schemaFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for i := range contents.Templates {
		t := &contents.Templates[i]
		if t.Statement, err = readStatement(root, t.File); err != nil {
			return nil, fmt.Errorf("template %s: %w", t.ID, err)
		}
		t.File = "" // it has served: what was read equals what was written
	}
	for i := range contents.Policies {
		p := &contents.Policies[i]
		// A link has no file.
		if p.File == "" {
			continue
		}
		if p.Statement, err = readStatement(root, p.File); err != nil {
			return nil, fmt.Errorf("policy %s: %w", p.ID, err)
		}
		p.File = ""
	}
	return contents, contents.check()
}

// readStatement takes off the line's end that the file has and the statement has not. Only one is taken
// off, so a statement that ends in a line's end keeps its own.
func readStatement(root *os.Root, name string) (string, error) {
	text, err := readFile(root, name)
	return strings.TrimSuffix(text, "\n"), err
}

// readFile follows no link out of the directory, and reads no more than a policy store may hold.
func readFile(root *os.Root, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, copse.MaxContentsBytes+1))
	if err != nil {
		return "", err
	}
	if len(text) > copse.MaxContentsBytes {
		return "", copse.Errorf(copse.Invalid, "%s has more than %d bytes", name, copse.MaxContentsBytes)
	}
	return string(text), nil
}
