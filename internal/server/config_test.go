package server

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/access"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "copse.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoadConfigLaterWins(t *testing.T) {
	file := writeFile(t, `# a comment
data: /from/file
listen: 127.0.0.1:1
idle-timeout: 7s
behind-tls-proxy: true
root-secret-access-key: 0123456789
`)
	cfg, err := LoadConfig(file, []string{
		"COPSE_LISTEN=127.0.0.1:2", "COPSE_MAX_HEADER_BYTES=1000", "HOME=/nowhere",
		// Of the CLI, of the file itself, and of Kubernetes for a service named copse.
		"COPSE_URL=x", "COPSE_KEY=x", "COPSE_CONFIG=x", "COPSE_PORT=tcp://10.0.0.1:80", "COPSE_PORT_80_TCP_ADDR=10.0.0.1", "COPSE_SERVICE_HOST=10.0.0.1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Set("max-header-bytes", "2000"); err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.DataDir, want.Listen, want.IdleTimeout, want.BehindTLSProxy, want.MaxHeaderBytes = "/from/file", "127.0.0.1:2", 7*time.Second, true, 2000
	want.RootSecretAccessKey = "0123456789"
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

func TestLoadConfigEmptyFile(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n"} {
		if _, err := LoadConfig(writeFile(t, text), nil); err != nil && text != "---\n" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLoadConfigRefuses(t *testing.T) {
	for _, c := range []struct{ name, file, env, want string }{
		{"unknown key", "data: /d\nlistn: 127.0.0.1:1\n", "", `copse.yaml:2: listn: there is no setting "listn"`},
		{"another case", "Data: /d\n", "", `copse.yaml:1: Data: there is no setting`},
		{"two documents", "data: /d\n---\nbehind-tls-proxy: false\n", "", "copse.yaml:2: a second document begins here"},
		{"twice", "data: /d\nlisten: a\ndata: /e\n", "", "copse.yaml:3: data is set twice, first in line 1"},
		{"not a duration", "\nidle-timeout: 7\n", "", `copse.yaml:2: idle-timeout: "7" is not a duration such as 30s or 2m`},
		{"not a bool", "decision-log: perhaps\n", "", `copse.yaml:1: decision-log: "perhaps" is not true or false`},
		{"null", "data:\n", "", "copse.yaml:1: data needs one plain value"},
		{"list", "data: [a, b]\n", "", "copse.yaml:1: data needs one plain value"},
		{"no settings", "- data\n", "", "copse.yaml:1: expected settings"},
		{"not YAML", "data: 'x\n", "", "copse.yaml: line"},
		{"unknown variable", "", "COPSE_LISTN=1", "environment: there is no setting COPSE_LISTN"},
		{"value of a variable", "", "COPSE_READ_TIMEOUT=soon", `environment: COPSE_READ_TIMEOUT: "soon" is not a duration`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := LoadConfig(writeFile(t, c.file), []string{c.env})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to contain %q", err, c.want)
			}
		})
	}
	// All mistakes at once, where they are.
	_, err := LoadConfig(writeFile(t, "listn: x\ndata: /d\nidle-timeout: 7\ndata: /e\n"), []string{"COPSE_LISTN=1", "COPSE_READ_TIMEOUT=soon"})
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("five mistakes: %v", err)
	}
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "absent.yaml"), nil); err == nil {
		t.Error("a file that is not there was taken for an empty one")
	}
}

func TestLoadConfigWantsASecretKept(t *testing.T) {
	for _, c := range []struct {
		text string
		mode os.FileMode
		ok   bool
	}{
		{"root-secret-access-key: 0123456789", 0o600, true},
		{"root-secret-access-key: 0123456789", 0o640, true},
		{"root-secret-access-key: 0123456789", 0o644, false},
		{"root-secret-access-key: 0123456789", 0o602, false},
		{"root-secret-access-key: \"\"", 0o644, true},
		{"data: /d", 0o644, true},
	} {
		file := writeFile(t, c.text)
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		switch _, err := LoadConfig(file, nil); {
		case c.ok && err != nil:
			t.Errorf("%s, %04o: %v", c.text, c.mode, err)
		case !c.ok && (err == nil || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), "0123456789")):
			t.Errorf("%s, %04o: got %v, want to be told to chmod", c.text, c.mode, err)
		}
	}
}

// Every field can be set from outside, or is listed here with the reason why not.
func TestSettingsAreComplete(t *testing.T) {
	notSettings := map[string]string{
		"InMemory": "for tests and embedded", "Version": "the program's own",
		"NoRates": "for embedded", "IssuerEndpoints": "a list, in the file only; TestIssuerEndpoints reads it", "Log": "made by the program", "Stdout": "the program's own", "OnRootKey": "a function", "ExtraRoutes": "a function",
	}
	covered := map[any]bool{}
	cfg := DefaultConfig()
	for _, s := range Settings() {
		field := s.field(&cfg)
		if covered[field] {
			t.Errorf("%s: its field has two settings", s.Key)
		}
		covered[field] = true
		_ = s.Default() // panics when the type has no text form
		var value string
		switch field.(type) {
		case *string, *access.Secret:
			value = "some text"
		case *bool:
			value = "true"
		case *time.Duration:
			value = "17s"
		default:
			value = "17"
		}
		byFile, err := LoadConfig(writeFile(t, s.Key+": "+value+"\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		byEnv, err := LoadConfig("", []string{s.Env() + "=" + value})
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(byFile, byEnv) {
			t.Errorf("%s: file and environment disagree", s.Key)
		}
		want := DefaultConfig()
		if _, bool := field.(*bool); !bool && reflect.DeepEqual(byFile, want) {
			t.Errorf("%s: setting it changed nothing", s.Key)
		}
	}
	v := reflect.ValueOf(&cfg).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if _, excused := notSettings[name]; excused == covered[v.Field(i).Addr().Interface()] {
			t.Errorf("field %s: has a setting: %v, is excused: %v", name, !excused, excused)
		}
	}
}

func TestConfigRefusesWhatIsNotSafe(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string // empty: taken
	}{
		{"as it is", func(*Config) {}, ""},
		{"no data directory", func(c *Config) { c.DataDir = "" }, "no data directory"},
		{"half a root key", func(c *Config) { c.RootAccessKeyID = "AKIA" }, "go together"},
		{"half a certificate", func(c *Config) { c.TLSCert = "cert.pem" }, "go together"},
		{"http issuers alone", func(c *Config) { c.AllowHTTPIssuers = true }, "needs --allow-private-issuers"},
		{"client certificates without TLS", func(c *Config) { c.TLSClientCA = "ca.pem" }, "--tls-client-ca needs --tls-cert"},
		{"a delay before now", func(c *Config) { c.DrainDelay = -1 }, "--drain-delay"},
		{"no delay", func(c *Config) { c.DrainDelay = 0 }, ""},
		{"no connections", func(c *Config) { c.MaxConnections = 0 }, "--max-connections must be greater than zero"},
		{"less than no connections of an address", func(c *Config) { c.MaxConnectionsPerAddress = -1 }, "--max-connections-per-address"},
		{"any connections of an address", func(c *Config) { c.MaxConnectionsPerAddress = 0 }, ""},
		{"no streams", func(c *Config) { c.MaxStreams = 0 }, "--max-streams must be greater than zero"},
		{"no headers", func(c *Config) { c.MaxHeaders = 0 }, "--max-headers must be greater than zero"},
		{"no timeout", func(c *Config) { c.ReadHeaderTimeout = 0 }, "--read-header-timeout must be greater than zero"},
		{"plain HTTP for all", func(c *Config) { c.Listen = ":8420" }, "in the clear"},
		{"plain HTTP for a network", func(c *Config) { c.Listen = "10.1.2.3:8420" }, "in the clear"},
		{"plain HTTP for a name", func(c *Config) { c.Listen = "copse.example:8420" }, "in the clear"},
		{"IPv6 loopback", func(c *Config) { c.Listen = "[::1]:8420" }, ""},
		{"localhost", func(c *Config) { c.Listen = "localhost:8420" }, ""},
		{"behind a proxy", func(c *Config) { c.Listen, c.BehindTLSProxy = ":8420", true }, ""},
		{"with a certificate", func(c *Config) { c.Listen, c.TLSCert, c.TLSKey = ":8420", "c", "k" }, ""},
		{"no port", func(c *Config) { c.Listen = "127.0.0.1" }, "is not an address"},
		{"no port for operations", func(c *Config) { c.OpsListen = "127.0.0.1" }, "--ops-listen"},
		{"plain gRPC for all", func(c *Config) { c.ExtAuthzListen = ":8422" }, "--ext-authz-listen :8422 is reachable"},
		{"gRPC behind a proxy", func(c *Config) { c.ExtAuthzListen, c.BehindTLSProxy = ":8422", true }, ""},
		{"no port for gRPC", func(c *Config) { c.ExtAuthzListen = "127.0.0.1" }, "--ext-authz-listen"},
		{"no operations", func(c *Config) { c.OpsListen = "" }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.DataDir = "d"
			c.change(&cfg)
			err := cfg.Validate()
			if err == nil {
				err = cfg.ValidateListen()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
