package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// finding is one problem at a place the user can open in an editor. Its JSON is what `policy check --output
// json` gives to editors. Line and Column 0 are not known.
type finding struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitzero"`
	Column  int    `json:"column,omitzero"` // 1-based, in bytes, as editors and compilers count
	Message string `json:"message"`

	source string // the line itself; empty when it is not known
}

// newFinding takes the line out of the text the position is in. A position outside of the text shows no line.
func newFinding(file string, text []byte, line, column int, message string) finding {
	return finding{File: file, Line: line, Column: column, Message: message, source: lineOf(text, line)}
}

// place is the position in the form that editors and terminals make links of.
func (f finding) place() string {
	switch {
	case f.Line > 0 && f.Column > 0:
		return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
	case f.Line > 0:
		return fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	return f.File
}

// shownWidth of a source line around the caret: a minified schema is one line of 100 KB.
const shownWidth = 120

// render writes the finding as compilers do: place and message, the line, a caret under the column.
// Of a long line only the part around the column is shown; bytes that would steer a terminal are replaced.
func (f finding) render(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", oneLine(f.place()), oneLine(f.Message))
	// Without the line there is nothing to point into.
	if f.Line <= 0 || f.source == "" {
		return
	}
	// A column may lie behind the line's end: what is missing there is pointed at.
	source, column := f.source, min(max(f.Column, 1), len(f.source)+1)
	lead := ""
	// The caret is kept in the middle, and no character is cut in two.
	if start := column - 1 - shownWidth/2; len(source) > shownWidth && start > 0 {
		for start < len(source) && !utf8.RuneStart(source[start]) {
			start++
		}
		source, column, lead = source[start:], column-start, "..."
	}
	// At the end too, no character is cut in two.
	tail := ""
	if len(source) > shownWidth {
		end := shownWidth
		for end > 0 && !utf8.RuneStart(source[end]) {
			end--
		}
		source, tail = source[:end], "..."
	}
	fmt.Fprintf(w, "%5d | %s%s%s\n", f.Line, lead, shown(source), tail)
	if f.Column > 0 {
		// The lead is in front of the line, and of the caret.
		before := source[:min(column-1, len(source))]
		fmt.Fprintf(w, "      | %s%s^\n", strings.Repeat(" ", len(lead)), blank(before))
	}
}

// shown keeps tabs, so that the caret line can repeat them and stay aligned at any tab width.
func shown(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && unprintable(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// blank is what stands before the caret: as wide as s, for characters of the usual width.
func blank(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return '\t'
		}
		return ' '
	}, s)
}

// lineOf returns a 1-based line of the text, without its end; empty when there is no such line.
func lineOf(text []byte, line int) string {
	for n := 1; line >= 1; n++ {
		current, rest, more := bytes.Cut(text, []byte("\n"))
		// A line may end in CR LF.
		if n == line {
			return strings.TrimSuffix(string(current), "\r")
		}
		if !more {
			break
		}
		text = rest
	}
	return ""
}

// position turns a byte offset into line and column, both 1-based. offset is at most the length of text.
func position(text []byte, offset int) (line, column int) {
	before := text[:offset]
	line = 1 + bytes.Count(before, []byte("\n"))
	return line, offset - bytes.LastIndexByte(before, '\n')
}

// shift moves a position inside a part to the whole, whose part starts at startLine:startColumn. Only the
// part's first line is moved to the right; line 0 is the part as such, and becomes its start.
func shift(startLine, startColumn, line, column int) (int, int) {
	if line <= 0 {
		return startLine, startColumn
	}
	if line == 1 && column > 0 {
		column += startColumn - 1
	}
	return startLine + line - 1, column
}

// jsonFinding shows where JSON of the user's stops being JSON. err is what reading it returned.
func jsonFinding(file string, text []byte, err error) finding {
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) {
		return finding{File: file, Message: err.Error()}
	}
	line, column := position(text, min(int(syntax.ByteOffset), len(text)))
	return newFinding(file, text, line, column, syntax.Err.Error())
}
