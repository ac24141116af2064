package api

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// encodeOptions write times as RFC 3339 in UTC with microseconds, always six digits, so that they
// compare as text. Were zeros left out, a Z would be compared with a digit.
var encodeOptions = json.WithMarshalers(json.MarshalToFunc(func(enc *jsontext.Encoder, t time.Time) error {
	return enc.WriteToken(jsontext.String(t.UTC().Format("2006-01-02T15:04:05.000000Z")))
}))

// strictJSON is the only format. Its defaults refuse members that occur twice or differ in case, and
// text that is not UTF-8; unknown members are refused as well.
var strictJSON = huma.Format{
	Marshal: func(w io.Writer, v any) error {
		out, err := json.Marshal(v, encodeOptions)
		if err != nil {
			return err
		}
		// A client that went away is not an error of ours: huma would panic over it.
		_, _ = w.Write(append(out, '\n'))
		return nil
	},
	Unmarshal: func(data []byte, v any) error {
		// The error is a finding of huma's, so its text goes to the client.
		if err := json.Unmarshal(data, v, json.RejectUnknownMembers(true)); err != nil {
			return errors.New(jsonProblem(data, err))
		}
		return nil
	},
}

// jsonProblem says what is wrong with a body and where, in words that name no Go type.
func jsonProblem(body []byte, err error) string {
	var pointer jsontext.Pointer
	var offset int64
	problem := "is not valid JSON"
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		pointer, offset = e.JSONPointer, e.ByteOffset
		problem = "is not valid JSON: " + e.Err.Error()
		if errors.Is(e.Err, jsontext.ErrDuplicateName) {
			problem = "is given twice"
		}
	} else if e, ok := errors.AsType[*json.SemanticError](err); ok {
		pointer, offset = e.JSONPointer, e.ByteOffset
		problem = "has a value of the wrong type"
		if errors.Is(e.Err, json.ErrUnknownName) {
			problem = "is not a member copse knows; names are compared letter by letter, capitals included"
		}
	}
	line, column := position(body, offset)
	// The path is a JSON pointer, and may hold whatever the client wrote.
	where := shorten(string(pointer))
	if where == "" {
		where = "the body"
	}
	return fmt.Sprintf("%s %s (line %d, column %d)", where, problem, line, column)
}

// position of a byte in a text, from 1. An offset beyond the text is its end.
func position(text []byte, offset int64) (line, column int) {
	before := string(text[:min(max(offset, 0), int64(len(text)))])
	return 1 + strings.Count(before, "\n"), len(before) - strings.LastIndexByte(before, '\n')
}
