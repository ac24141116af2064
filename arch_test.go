package copse_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/copse-authz/copse"

// imports is the architecture: for each package, what its non-test files may import besides the
// standard library. A package that is not here fails the test, and so does a row whose package is
// gone. Change it only together with DESIGN.md, and say why in the row.
//
// "." is the root package; names without a dot in their first element are packages of this module;
// the rest are the words of [external].
var imports = map[string]string{
	".": "cedar-types",

	// Pure: no I/O, no clock. The only importer of Cedar's machinery.
	"internal/engine": ". cedar-types cedar json",

	// Persistence knows bytes and versions. The cache follows its feed.
	"internal/storage":                           ". otter prometheus", // its cache counts hits
	"internal/storage/memory":                    ". internal/storage",
	"internal/storage/sqlite":                    ". internal/storage sqlite sys",
	"internal/storage/sqlite/testdata/killchild": ". internal/storage internal/storage/sqlite",
	"internal/storage/storagetest":               ". internal/storage internal/storage/memory cmp", // memory is the model
	"internal/access":                            ". internal/storage prometheus json",
	"internal/auditlog":                          ". internal/access internal/storage", // reads what storage's commits leave, and verifies it without them
	"internal/decisionlog":                       ". cedar-types prometheus json",      // files of its own: not in storage
	"internal/token":                             ". cedar-types prometheus json jwt jwks otter sync",
	"internal/policystore":                       ". cedar-types internal/access internal/engine internal/storage prometheus json sync rate",
	"internal/tenant":                            ". cedar-types internal/access internal/policystore internal/storage prometheus json",
	"internal/member":                            ". internal/access internal/storage prometheus json",
	"internal/avp":                               ". cedar-types internal/access internal/decisionlog internal/policystore internal/token prometheus json", // tokens: two of its operations take them
	"internal/api":                               ". cedar-types internal/access internal/auditlog internal/decisionlog internal/member internal/policystore internal/tenant prometheus json huma",
	"internal/authorizer":                        ". cedar-types internal/access internal/decisionlog internal/member internal/token prometheus json yaml envoy", // members: who may choose their tenant; yaml: the route table; envoy: the messages of its external authorization
	"internal/dev":                               ". json jwt jwks examples/payments internal/access internal/policyfiles internal/policystore internal/server internal/tenant",
	"internal/server":                            ". internal/* prometheus yaml otel envoy grpc", // traces, which none of the parts knows of; gRPC's server, for Envoy
	// A directory of .cedar files as the contents of a policy store, for those who read files, none of
	// which may know the engine. Links are JSON, and name entities.
	"internal/policyfiles": ". cedar-types json internal/policystore internal/engine",
	"embedded":             ". cedar-types internal/access internal/policyfiles internal/policystore internal/server internal/tenant",
	// AWS's SDK speaks to policy stores elsewhere; cmd reaches it through here.
	// Its Decider asks a copse server over HTTP, signs with AWS's signer, and counts.
	"remote":    ". cedar-types json aws prometheus",
	"copsetest": ". json internal/access internal/dev internal/policyfiles internal/policystore internal/server internal/tenant",
	"cmd/copse": ". internal/access internal/api internal/auditlog internal/decisionlog internal/authorizer internal/dev internal/engine internal/policyfiles internal/server internal/storage/sqlite rls json cobra remote memlimit", // the engine, to check policies without a server; rls, and by it PostgreSQL's driver, for its SQL and audit; the memory limit is the process's, and so main's
	// Runs in AWS's Lambda, beside no storage: a test there holds what it links against this row's spirit.
	"cmd/copse-lambda":  "lambda",
	"examples/payments": "",
	// The sample SaaS on the whole chain, as users of the libraries would write it: nothing internal.
	"examples/payments/saas":  ". pep rls pgx",
	"examples/payments/chain": ". examples/payments/saas pep rls remote pgx",

	// The check inside a service. It verifies tokens by the same code as the server, and counts as it does.
	"pep": ". cedar-types internal/bound internal/token prometheus",
	// The tenant that pep has verified, for rls to read: a context key that nothing else can name.
	"internal/bound": ".",
	// The database's side of the chain; the only importer of pgx. The command line goes through it.
	"rls": ". internal/bound pgx",
	// Test support: real PostgreSQL and PgBouncer servers. Driven by psql, so that it knows no driver.
	"internal/pgtest": "",
}

// testImports is what test files may import on top of their package's row.
var testImports = map[string]string{
	"*":                       "rapid cmp testscript",
	".":                       "rls yaml", // docs_test.go holds the page of the audit against it; chart_test.go reads manifests
	"internal/storage/memory": "internal/storage/storagetest",
	"internal/storage/sqlite": "internal/storage/storagetest internal/storage/memory",
	"internal/avp":            "aws internal/*",
	"internal/access":         "aws internal/storage/memory",
	"internal/auditlog":       "internal/storage/memory",
	"internal/member":         "internal/storage/memory lambda", // whose sample events they are
	"internal/policystore":    "internal/storage/memory internal/storage/sqlite internal/tenant",
	"internal/tenant":         "internal/storage/memory internal/storage/sqlite",
	"internal/api":            "aws internal/*",
	"internal/authorizer":     "internal/*",
	"internal/server":         "aws jwt copsetest pep h2 sys", // behind the gateways stands a service; frames of HTTP/2 that no client sends; limits of another process
	"internal/dev":            "internal/*",
	"internal/policyfiles":    "",
	"internal/token":          "jwt",
	"internal/engine":         "",
	"bench":                   ". internal/* copsetest embedded cedar cedar-types aws json jwt internal/pgtest pgx rls pep grpc envoy",
	"conformance":             ". aws json jwt copsetest", // a client like any other
	"copsetest":               "aws",
	"embedded":                "aws json copsetest examples/payments internal/* remote",
	"cmd/copse":               "internal/pgtest",
	"cmd/copse-lambda":        "copsetest",
	"remote":                  "copsetest internal/*",
	"rls":                     "internal/pgtest",
	"pep":                     "embedded remote internal/* json jwt chi echo",
}

// external gives the module paths behind a word of the tables.
var external = map[string][]string{
	"cedar-types": {"github.com/cedar-policy/cedar-go/types"},
	"cedar":       {"github.com/cedar-policy/cedar-go"},
	"json":        {"github.com/go-json-experiment/json"},
	"otter":       {"github.com/maypok86/otter/v2"},
	"memlimit":    {"github.com/KimMachineGun/automemlimit"},
	"sqlite":      {"modernc.org/sqlite"},
	"sys":         {"golang.org/x/sys"},
	"sync":        {"golang.org/x/sync"},
	"rate":        {"golang.org/x/time/rate"},
	"prometheus":  {"github.com/prometheus/client_golang", "github.com/prometheus/client_model", "github.com/prometheus/common"},
	"jwt":         {"github.com/golang-jwt/jwt/v5"},
	"jwks":        {"github.com/MicahParks/jwkset"},
	"huma":        {"github.com/danielgtaylor/huma/v2"},
	"pgx":         {"github.com/jackc/pgx/v5"},
	"cobra":       {"github.com/spf13/cobra", "github.com/spf13/pflag"},
	"otel":        {"go.opentelemetry.io/otel", "go.opentelemetry.io/proto/otlp", "google.golang.org/protobuf"},
	"yaml":        {"go.yaml.in/yaml/v3"},
	"aws":         {"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go"},
	"lambda":      {"github.com/aws/aws-lambda-go"},
	"grpc":        {"google.golang.org/grpc"},
	"h2":          {"golang.org/x/net/http2"},
	"envoy":       {"github.com/envoyproxy/go-control-plane/envoy", "google.golang.org/genproto/googleapis/rpc/status", "google.golang.org/grpc/codes"},
	"chi":         {"github.com/go-chi/chi/v5"},
	"echo":        {"github.com/labstack/echo/v4"},
	"rapid":       {"pgregory.net/rapid"},
	"cmp":         {"github.com/google/go-cmp"},
	"testscript":  {"github.com/rogpeppe/go-internal"},
}

// The files are read with go/parser and not by asking the go command: only what a test opens itself
// makes its cached result go stale.
func TestImportRules(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		isTest := strings.HasSuffix(name, "_test.go")
		if !isTest {
			seen[pkg] = true
			if _, listed := imports[pkg]; !listed {
				t.Errorf("%s: package %s has no row in the import table", path, pkg)
				return nil
			}
		}
		checkImports(t, path, pkg, isTest)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) < 15 {
		t.Fatalf("only %d packages found: the walk is broken", len(seen))
	}
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		if !seen[pkg] {
			t.Errorf("the import table has a row for %s, which has no Go files", pkg)
		}
	}
}

func checkImports(t *testing.T, path, pkg string, isTest bool) {
	t.Helper()
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.ImportsOnly)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	allowed := strings.Fields(imports[pkg])
	if isTest {
		allowed = append(allowed, pkg)
		allowed = append(allowed, strings.Fields(testImports[pkg])...)
		allowed = append(allowed, strings.Fields(testImports["*"])...)
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if !importAllowed(imported, allowed) {
			t.Errorf("%s imports %s, which the row of %s does not allow", path, imported, pkg)
		}
	}
}

func importAllowed(imported string, allowed []string) bool {
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") {
		return true // standard library
	}
	for _, rule := range allowed {
		prefixes, isExternal := external[rule]
		if !isExternal {
			local := module + "/" + rule
			if rule == "." {
				local = module
			}
			if base, ok := strings.CutSuffix(local, "/*"); ok && strings.HasPrefix(imported, base+"/") || imported == local {
				return true
			}
			continue
		}
		for _, prefix := range prefixes {
			if imported == prefix || strings.HasPrefix(imported, prefix+"/") {
				return true
			}
		}
	}
	return false
}

// The rules themselves must bite: a table that allows everything would pass the walk above.
func TestImportRulesBite(t *testing.T) {
	for _, c := range []struct {
		imported, pkg string
		want          bool
	}{
		{"github.com/cedar-policy/cedar-go", "internal/engine", true},
		{"github.com/cedar-policy/cedar-go", "internal/policystore", false},
		{"github.com/cedar-policy/cedar-go/types", ".", true},
		{"github.com/cedar-policy/cedar-go/x/exp/ast", ".", false},
		{"modernc.org/sqlite", "internal/storage/sqlite", true},
		{"modernc.org/sqlite", "internal/server", false},
		{module + "/internal/storage", "internal/avp", false},
		{module + "/internal/engine", "internal/authorizer", false},
		{module + "/internal/api", "internal/avp", false},
		{"github.com/aws/aws-sdk-go-v2/aws", "internal/access", false},
		{"github.com/jackc/pgx/v5/pgxpool", "rls", true},
		{"github.com/jackc/pgx/v5", "cmd/copse", false},
		{module + "/internal/token", "rls", false},
		{"net/http", "internal/engine", true},
	} {
		if got := importAllowed(c.imported, strings.Fields(imports[c.pkg])); got != c.want {
			t.Errorf("may %s import %s? got %v", c.pkg, c.imported, got)
		}
	}
}

// Besides imports, some packages may not reach for the outside world at all.
func TestPurity(t *testing.T) {
	forbidden := map[string][]string{
		// It may import sync, for a pool of scratch memory (call.go): nothing in there means anything. And syscall, on
		// Linux, to let others have the processor (giveway_linux.go): that changes no answer.
		"internal/engine":      {"net", "net/http", "os", "time", "context", "log/slog", "math/rand", "math/rand/v2", "crypto/rand"},
		"internal/policystore": {"net/http", "os"},
		"internal/tenant":      {"net/http", "os"},
		"internal/storage":     {"net/http", "os"},
	}
	for pkg, names := range forbidden {
		files, err := filepath.Glob(filepath.Join(pkg, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files (%v)", pkg, err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range file.Imports {
				imported, _ := strconv.Unquote(spec.Path.Value)
				if slices.Contains(names, imported) {
					t.Errorf("%s imports %s; %s must not", path, imported, pkg)
				}
			}
		}
	}
}
