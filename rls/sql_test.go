package rls

import (
	"strings"
	"testing"

	"github.com/copse-authz/copse"
)

func TestParseTable(t *testing.T) {
	for in, want := range map[string][2]string{
		"orders":            {"public", "orders"},
		"sales.orders":      {"sales", "orders"},
		"Sales.Orders":      {"Sales", "Orders"},
		`"a.b".orders`:      {"a.b", "orders"},
		`"a""b"."c d"`:      {`a"b`, "c d"},
		`"orders"`:          {"public", "orders"},
		"o'rders; DROP x--": {"public", "o'rders; DROP x--"},
	} {
		schema, table, err := ParseTable(in)
		if err != nil || schema != want[0] || table != want[1] {
			t.Errorf("%s: %q, %q, %v", in, schema, table, err)
		}
	}
	for _, in := range []string{"", ".", "a.", ".a", "a.b.c", `"a`, `"a"b`, `a"b"`, `""`, `a.""`, `"a".`} {
		if _, _, err := ParseTable(in); copse.KindOf(err) != copse.Invalid {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestBadNamesAreRefused(t *testing.T) {
	for _, name := range []string{"", strings.Repeat("x", 64), "a\x00b", "\xff"} {
		if _, err := InitSQL(name); copse.KindOf(err) != copse.Invalid {
			t.Errorf("role %q: %v", name, err)
		}
		if _, err := InitSQL("app", name); copse.KindOf(err) != copse.Invalid {
			t.Errorf("schema %q: %v", name, err)
		}
		for _, table := range []Table{{Schema: name, Name: "t", Role: "r"}, {Schema: "s", Name: name, Role: "r"}, {Schema: "s", Name: "t", Role: name}} {
			if _, err := AddTableSQL(table); copse.KindOf(err) != copse.Invalid {
				t.Errorf("%+v: %v", table, err)
			}
		}
	}
	if _, err := AddTableSQL(Table{Schema: "s", Name: "t", Role: "r", Type: "bigint"}); copse.KindOf(err) != copse.Invalid {
		t.Errorf("a column of another type: %v", err)
	}
}

func TestOldServer(t *testing.T) {
	for version, want := range map[int]bool{
		120022: true, 130021: true, 130022: false, 140018: true, 140019: false, 150013: true, 150014: false,
		160009: true, 160010: false, 170005: true, 170006: false, 180000: false, 190001: false, 90624: true,
	} {
		if f, old := oldServer(version); old != want || old && (f.Check != serverVersionCheck || f.Fix == "") {
			t.Errorf("%d: %v", version, old)
		}
	}
}
