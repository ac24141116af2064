package conformance

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Clients that others wrote, as they are published: they learn of copse by environment variables and
// by nothing else. Each speaks through a recorder, which holds every answer against the service model.

func TestSDKForJavaScript(t *testing.T) {
	t.Parallel()
	watch := foreign(t, nodeProgram(t, "roundtrip.mjs"))
	succeededAll(t, watch)
}

func TestExpressMiddleware(t *testing.T) {
	t.Parallel()
	watch := foreign(t, nodeProgram(t, "express.mjs"))
	for _, operation := range []string{"IsAuthorized", "IsAuthorizedWithToken"} {
		if n := watch.count(operation, ""); n < 6 {
			t.Errorf("the middleware decided %d times with %s", n, operation)
		}
	}
}

func TestBoto3(t *testing.T) {
	t.Parallel()
	dir := python(t)
	watch := foreign(t, program{dir: t.TempDir(), args: []string{filepath.Join(dir, "bin", "python"), absolute(t, "python/roundtrip.py")}})
	succeededAll(t, watch)
}

func TestAWSCommandLine(t *testing.T) {
	t.Parallel()
	dir := python(t)
	watch := foreign(t, program{dir: t.TempDir(), path: filepath.Join(dir, "bin"), args: []string{"bash", absolute(t, "python/cli.sh")}})
	for _, operation := range []string{"CreatePolicyStore", "PutSchema", "CreatePolicy", "IsAuthorized", "ListPolicies", "DeletePolicyStore"} {
		if watch.count(operation, "") == 0 {
			t.Errorf("the command line never had a success of %s", operation)
		}
	}
}

func succeededAll(t *testing.T, watch *recorder) {
	t.Helper()
	all := slices.Sorted(maps.Keys(watch.model.Operations))
	if got := watch.succeeded(); !slices.Equal(got, all) {
		t.Errorf("operations that succeeded: %v", got)
	}
}

// program is a client and where it runs.
type program struct {
	dir, path string
	args      []string
}

// nodeProgram lays the programs of js/ beside the packages they import.
func nodeProgram(t *testing.T, name string) program {
	t.Helper()
	version, err := exec.Command("node", "--version").Output()
	if err != nil {
		t.Fatalf("node: %v; scripts/deps installs what the tests need", err)
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(string(version), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < 20 {
		t.Fatalf("node %s: the AWS SDK for JavaScript needs version 20 or later", version)
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(node(t), "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{name, "openapi.json"} {
		text, err := os.ReadFile(filepath.Join("js", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return program{dir: dir, args: []string{"node", name}}
}

// foreign runs a client against a server of its own and returns what was said.
func foreign(t *testing.T, p program) *recorder {
	t.Helper()
	s, watch := start(t), newRecorder(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	cmd.Dir = p.dir
	cmd.Env = []string{
		"PATH=" + p.path + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME=" + p.dir,
		"AWS_ENDPOINT_URL_VERIFIEDPERMISSIONS=" + watch.proxy(t, s.URL),
		"AWS_ACCESS_KEY_ID=" + s.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + s.SecretAccessKey, "AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1",
		"AWS_EC2_METADATA_DISABLED=true",
		"TEST_USER_POOL=" + poolARN,
		"TEST_ID_TOKEN=" + s.issuer.token(t, "id", nil), "TEST_ACCESS_TOKEN=" + s.issuer.token(t, "access", nil),
		"TEST_STRANGER_ID_TOKEN=" + s.issuer.token(t, "id", map[string]any{"cognito:groups": nil}),
		"TEST_STRANGER_ACCESS_TOKEN=" + s.issuer.token(t, "access", map[string]any{"cognito:groups": nil}),
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), ": done") {
		t.Errorf("%s: %v\n%s", strings.Join(p.args, " "), err, out)
	}
	return watch
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
