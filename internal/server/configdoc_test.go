package server_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/server"
)

const configurationPage = "../../docs/configuration.md"

// The page of settings is made of the comments of Config, so that neither goes stale.
// COPSE_UPDATE=1 go test -run TestConfigurationPage ./internal/server writes it.
func TestConfigurationPage(t *testing.T) {
	page := configurationText(t)
	if os.Getenv("COPSE_UPDATE") != "" {
		if err := os.WriteFile(configurationPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(configurationPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page {
		t.Error("docs/configuration.md is not what the comments of Config say; run: COPSE_UPDATE=1 go test -run TestConfigurationPage ./internal/server")
	}
}

func configurationText(t *testing.T) string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments, fields := fieldComments(file), settingFields(file)
	var b strings.Builder
	b.WriteString(`# Configuration

Made of the comments in internal/server/config.go; a test holds the two together.

A setting is given in the configuration file ("copse serve --config FILE": YAML, one "key: value" a line), in the environment, or as a
flag; the later wins. What is misspelt is refused with file, line and key. "copse config check FILE" checks a file, "copse config show"
shows what is in effect and where it comes from. "issuer_endpoints" is for the file only ([identity](identity.md#keys-from-somewhere-else)).
`)
	settings := server.Settings()
	for i, s := range settings {
		text := comments[fields[s.Key]]
		if text == "" {
			t.Errorf("the field of %s has no comment", s.Key)
		}
		if i > 0 && comments[fields[settings[i-1].Key]] == text { // a comment on several fields stands by the first
			text = ""
		}
		value := s.Default()
		if value == "" {
			value = "none"
		}
		flag := "`--" + s.Key + "`"
		if s.NoFlag {
			flag = "no flag: it would be in every process list"
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s. Default: %s. Environment: `%s`. Flag: %s.\n", s.Key, strings.ToUpper(s.Usage[:1])+s.Usage[1:], value, s.Env(), flag)
		if text != "" {
			fmt.Fprintf(&b, "\n%s\n", text)
		}
	}
	return b.String()
}

// fieldComments are Config's, by field, in one paragraph each.
func fieldComments(file *ast.File) map[string]string {
	out := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != "Config" {
			return true
		}
		last := ""
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			if f.Doc != nil {
				last = strings.Join(strings.Fields(strings.NewReplacer("[Settings]", "Settings").Replace(f.Doc.Text())), " ")
			}
			for _, name := range f.Names {
				out[name.Name] = last
			}
		}
		return false
	})
	return out
}

// settingFields finds which field each setting has: the one its function returns.
func settingFields(file *ast.File) map[string]string {
	out := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		key, field := "", ""
		for _, e := range lit.Elts {
			kv, ok := e.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			switch name, _ := kv.Key.(*ast.Ident); {
			case name == nil:
			case name.Name == "Key":
				if text, ok := kv.Value.(*ast.BasicLit); ok {
					key = strings.Trim(text.Value, `"`)
				} else {
					key = "root-secret-access-key"
				}
			case name.Name == "field":
				ast.Inspect(kv.Value, func(n ast.Node) bool {
					if sel, ok := n.(*ast.SelectorExpr); ok {
						field = sel.Sel.Name
					}
					return true
				})
			}
		}
		if key != "" && field != "" {
			out[key] = field
		}
		return true
	})
	return out
}
