package server

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/policystore"
)

// Config is everything a server can be told. The comments are the reference: a field with a key in
// [Settings] can be set in the configuration file under that key, in the environment as COPSE_ and
// the key in upper case with underscores, and as the flag of the same name, later ones winning.
type Config struct {
	// DataDir holds the database, the master key and the root key. It is made when it is absent.
	DataDir string
	// InMemory keeps everything in memory instead, and needs no DataDir. Not a setting: for tests
	// and for policy stores loaded from files.
	InMemory bool

	// Listen is the address of the API. Port 0 takes a free one.
	Listen string
	// OpsListen is the address of /healthz, /readyz and /metrics, which ask for no credential and are
	// therefore on a listener of their own, on loopback unless told otherwise. Empty: none.
	OpsListen string
	// ExtAuthzListen is the address of Envoy's external authorization, over gRPC and with the same
	// certificate. Empty: none.
	ExtAuthzListen string
	// TLSCert and TLSKey are PEM files. They are read again when they change; while what is there does not
	// fit together, the former pair is used.
	TLSCert, TLSKey string
	// TLSClientCA is a PEM file of certificates. With it, clients of the API and of Envoy's listener must show
	// a certificate that chains to one of them, beside the key or token that says what they may. It is read
	// again with the others. Empty: clients show none.
	TLSClientCA string
	// BehindTLSProxy states that something in front speaks TLS. Without it and without a
	// certificate, Listen must be a loopback address: tokens and keys are not sent in the clear.
	BehindTLSProxy bool

	// RootAccessKeyID and RootSecretAccessKey are the key that may do everything. They are never
	// stored, and win over a stored one. Both empty: the key in DataDir/root.key, made if need be.
	RootAccessKeyID     string
	RootSecretAccessKey access.Secret
	// MasterKeyFile holds the key that access keys are encrypted under: 32 bytes in base 64 or
	// hexadecimal. Empty: DataDir/master.key, made if need be, with a warning, because then whoever
	// copies the directory has the key as well.
	MasterKeyFile string
	// Region is the only one SigV4 may be signed for. Empty: any.
	Region string

	// AccountID is the account that ARNs name: twelve digits.
	AccountID string

	// AllowPrivateIssuers lets issuer keys be fetched from private and loopback addresses.
	AllowPrivateIssuers bool
	// AllowHTTPIssuers lets them be fetched over http from loopback, with AllowPrivateIssuers.
	AllowHTTPIssuers bool
	// IssuerEndpoints are issuers whose keys are somewhere else: issuer_endpoints in the configuration
	// file.
	IssuerEndpoints []IssuerEndpoint

	// PublicURL is the URL that services know copse by: the issuer of signed contexts, byte for byte.
	// Empty: gateways get no signed contexts.
	PublicURL string
	// RoutesFile says what the requests at gateways ask; it is read again when it changes. Empty: nothing
	// passes a gateway.
	RoutesFile string
	// ContextKeyRotation is how long a key of signed contexts signs, about.
	ContextKeyRotation time.Duration

	// BackupDir is where backups are made on schedule, better on another disk. Empty: none are made.
	BackupDir string
	// BackupEvery is how often, BackupKeep how many stay.
	BackupEvery time.Duration
	BackupKeep  int

	// MinFreeBytes is the room on the data directory's disk below which the server does not start, and
	// says so when it runs: decisions go on, until writes fail.
	MinFreeBytes int64
	// AllowClockBehind starts although the newest stored time is later than the clock says. Expired tokens
	// pass when a clock is behind, so without it the server neither starts nor is ready.
	AllowClockBehind bool

	// SnapshotCacheBytes bounds the compiled policy stores kept in memory.
	SnapshotCacheBytes int64

	// DefaultPlan is the plan of new policy stores: default, avp, unmetered, or one that was made since.
	// Those there are stay on theirs.
	DefaultPlan string
	// NoRates leaves the rates of all plans aside. Not a setting: for policy stores used in process.
	NoRates bool

	// ReadHeaderTimeout, ReadTimeout and WriteTimeout bound one request, IdleTimeout a connection
	// between requests.
	ReadHeaderTimeout time.Duration
	ReadTimeout       time.Duration
	WriteTimeout      time.Duration
	IdleTimeout       time.Duration
	// DrainDelay is how long the server goes on as before once it is told to end, but that /readyz says
	// 503: give it a little more than a load balancer needs to notice. ShutdownTimeout is how long
	// requests that are under way then may take; what is left is cut off. A second signal ends at once.
	DrainDelay      time.Duration
	ShutdownTimeout time.Duration
	// MaxHeaderBytes bounds a request's line and headers, MaxHeaders how many headers it has.
	MaxHeaderBytes int
	MaxHeaders     int
	// MaxConnections bounds the open connections of the API and of Envoy's listener together; fewer are taken
	// when the process may not open as many files. MaxConnectionsPerAddress bounds those of one client
	// address (of a network of 64 bits with IPv6); 0 does not. MaxStreams bounds the requests that one
	// connection over HTTP/2 or gRPC may have under way.
	MaxConnections           int
	MaxConnectionsPerAddress int
	MaxStreams               int

	// DecisionLog keeps a line for every decision in DataDir/decisions.
	DecisionLog bool
	// DecisionLogFull is what new policy stores have as what happens to a decision that the log can't take:
	// "drop" gives it, and counts it as lost; "wait" gives none before it is on disk, and refuses it if that
	// can't be.
	DecisionLogFull string
	// DecisionLogSegmentBytes and DecisionLogSegmentAge: a file that is larger or older is closed, signed
	// and compressed.
	DecisionLogSegmentBytes int64
	DecisionLogSegmentAge   time.Duration
	// DecisionLogRetainBytes and DecisionLogRetainAge: closed files go, the oldest first, when all are larger
	// than this together, or when they were closed longer ago.
	DecisionLogRetainBytes int64
	DecisionLogRetainAge   time.Duration
	// DecisionLogExport has every line of a decision written a second time: to "stdout", to a file
	// ("file:PATH"), or to an OpenTelemetry collector ("otlp:URL", its /v1/logs). Empty: nowhere.
	DecisionLogExport string
	// Stdout is where the export "stdout" writes. Not a setting: the program has it.
	Stdout io.Writer

	// TraceEndpoint is the URL that spans are sent to, as OTLP over HTTP. Empty: there are no traces, and no
	// cost. Variables named OTEL_ are not read.
	TraceEndpoint string
	// TraceRatio is the share of requests that are traced, between 0 and 1.
	TraceRatio float64
	// TraceParents takes trace ids, and whether to trace, from the traceparent header of callers. Only
	// for servers that none but trusted callers reach: any caller can then have itself traced.
	TraceParents bool
	// TraceTenants puts the tenant's id into spans.
	TraceTenants bool

	// Version of copse, for the OpenAPI document.
	Version string
	// LogLevel and LogFormat are for the program that makes Log: debug, info, warn or error, and text
	// or json. The server itself does not read them.
	LogLevel, LogFormat string
	// Log receives everything. Nil: nothing.
	Log *slog.Logger
	// OnRootKey is called once when a root key was made: with the file that holds it, and with the
	// credential, so that a program on a terminal may show it. It must not be logged.
	OnRootKey func(file string, credential access.Secret)
	// ExtraRoutes adds routes to the API's listener, given the base URL it is reached at. Only
	// `copse dev` sets it: a server for real use has the routes of [Server.Routes] and no others.
	ExtraRoutes func(baseURL string) []Route
}

// Route is one entry of the route table.
type Route struct {
	Pattern string // of net/http: "POST /v1/authorize"
	// Open routes answer without a credential. A test lists them.
	Open    bool
	Handler http.Handler
}

// DefaultConfig is what holds before file, environment and flags are read.
func DefaultConfig() Config {
	return Config{
		Listen:             "127.0.0.1:8420",
		OpsListen:          "127.0.0.1:8421",
		SnapshotCacheBytes: 256 << 20,
		MinFreeBytes:       64 << 20,
		AccountID:          "000000000000",
		DefaultPlan:        policystore.PlanDefault,
		ContextKeyRotation: 24 * time.Hour,
		BackupEvery:        24 * time.Hour,
		BackupKeep:         7,
		ReadHeaderTimeout:  5 * time.Second,
		ReadTimeout:        30 * time.Second,
		WriteTimeout:       60 * time.Second,
		IdleTimeout:        2 * time.Minute,
		DrainDelay:         5 * time.Second,
		ShutdownTimeout:    20 * time.Second,
		MaxHeaderBytes:     64 << 10,
		MaxHeaders:         200,
		MaxConnections:     16384,
		MaxStreams:         250,

		MaxConnectionsPerAddress: 4096,

		DecisionLog:     true,
		DecisionLogFull: string(policystore.LogDrop),

		DecisionLogSegmentBytes: decisionlog.DefaultSegmentBytes,
		DecisionLogSegmentAge:   decisionlog.DefaultSegmentAge,
		DecisionLogRetainBytes:  decisionlog.DefaultRetainBytes,
		DecisionLogRetainAge:    decisionlog.DefaultRetainAge,

		TraceRatio: 0.01,
		LogLevel:   "info",
		LogFormat:  "text",
	}
}

// rootSecretKey is known by name where the file that holds it must not be everybody's to read.
const rootSecretKey = "root-secret-access-key"

// Setting is one thing that can be configured from outside.
// File, environment, flags and help all go by [Settings]: what is there can be set in each of them.
type Setting struct {
	// Key is the name in the configuration file and of the flag.
	Key   string
	Usage string
	// NoFlag: a secret, which would be in every process list.
	NoFlag bool
	// Bool: the flag may stand without a value.
	Bool bool

	field func(*Config) any
}

// Env is the setting's name in the environment.
func (s Setting) Env() string {
	return "COPSE_" + strings.ToUpper(strings.ReplaceAll(s.Key, "-", "_"))
}

// Default is the value before anything is configured, as text.
func (s Setting) Default() string {
	cfg := DefaultConfig()
	return s.Value(&cfg)
}

// Value is the setting's value in cfg, as text; of a secret no more than whether there is one.
func (s Setting) Value(cfg *Config) string {
	switch p := s.field(cfg).(type) {
	case *string:
		return *p
	case *access.Secret:
		if *p == "" {
			return ""
		}
		return p.String()
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *int64:
		return strconv.FormatInt(*p, 10)
	case *float64:
		return strconv.FormatFloat(*p, 'g', -1, 64)
	case *time.Duration:
		return p.String()
	default:
		panic(fmt.Sprintf("setting %s: no text form for %T", s.Key, p))
	}
}

// Settings lists what file, environment and flags may set, in the order of a help text.
func Settings() []Setting {
	return []Setting{
		{Key: "data", Usage: "directory of the database and its keys", field: func(c *Config) any { return &c.DataDir }},
		{Key: "listen", Usage: "address of the API", field: func(c *Config) any { return &c.Listen }},
		{Key: "ops-listen", Usage: "address of /healthz, /readyz and /metrics; empty for none", field: func(c *Config) any { return &c.OpsListen }},
		{Key: "ext-authz-listen", Usage: "address of Envoy's external authorization (gRPC); empty for none", field: func(c *Config) any { return &c.ExtAuthzListen }},
		{Key: "tls-cert", Usage: "PEM file of the certificate chain; read again when it changes", field: func(c *Config) any { return &c.TLSCert }},
		{Key: "tls-key", Usage: "PEM file of the certificate's key", field: func(c *Config) any { return &c.TLSKey }},
		{Key: "tls-client-ca", Usage: "PEM file of the certificates that clients' own must chain to; empty if clients need none", field: func(c *Config) any { return &c.TLSClientCA }},
		{Key: "behind-tls-proxy", Usage: "allow plain HTTP beyond loopback, because a proxy in front speaks TLS", Bool: true, field: func(c *Config) any { return &c.BehindTLSProxy }},
		{Key: "root-access-key-id", Usage: "id of the key that may do everything", field: func(c *Config) any { return &c.RootAccessKeyID }},
		{Key: rootSecretKey, Usage: "its secret", NoFlag: true, field: func(c *Config) any { return &c.RootSecretAccessKey }},
		{Key: "master-key-file", Usage: "file of the key that access keys are encrypted under", field: func(c *Config) any { return &c.MasterKeyFile }},
		{Key: "region", Usage: "the only region requests may be signed for; empty for any", field: func(c *Config) any { return &c.Region }},
		{Key: "account-id", Usage: "the account that ARNs name: twelve digits", field: func(c *Config) any { return &c.AccountID }},
		{Key: "allow-private-issuers", Usage: "fetch issuer keys from private and loopback addresses too", Bool: true, field: func(c *Config) any { return &c.AllowPrivateIssuers }},
		{Key: "allow-http-issuers", Usage: "fetch issuer keys over http from loopback, with --allow-private-issuers", Bool: true, field: func(c *Config) any { return &c.AllowHTTPIssuers }},
		{Key: "public-url", Usage: "URL that services know copse by: the issuer of signed contexts; empty for none", field: func(c *Config) any { return &c.PublicURL }},
		{Key: "routes-file", Usage: "YAML file that says what requests at gateways ask; read again when it changes", field: func(c *Config) any { return &c.RoutesFile }},
		{Key: "context-key-rotation", Usage: "how long a key of signed contexts signs", field: func(c *Config) any { return &c.ContextKeyRotation }},
		{Key: "backup-dir", Usage: "directory for backups on schedule, better on another disk; empty for none", field: func(c *Config) any { return &c.BackupDir }},
		{Key: "backup-every", Usage: "how often a backup is made there", field: func(c *Config) any { return &c.BackupEvery }},
		{Key: "backup-keep", Usage: "how many of those backups stay", field: func(c *Config) any { return &c.BackupKeep }},
		{Key: "min-free-bytes", Usage: "room on the data directory's disk without which the server does not start; 0 for any", field: func(c *Config) any { return &c.MinFreeBytes }},
		{Key: "allow-clock-behind", Usage: "start although stored times are later than the clock", Bool: true, field: func(c *Config) any { return &c.AllowClockBehind }},
		{Key: "snapshot-cache-bytes", Usage: "memory for compiled policy stores", field: func(c *Config) any { return &c.SnapshotCacheBytes }},
		{Key: "default-plan", Usage: "plan of new policy stores: default, avp, unmetered, or one of your own", field: func(c *Config) any { return &c.DefaultPlan }},
		{Key: "read-header-timeout", Usage: "longest wait for a request's headers", field: func(c *Config) any { return &c.ReadHeaderTimeout }},
		{Key: "read-timeout", Usage: "longest wait for a whole request", field: func(c *Config) any { return &c.ReadTimeout }},
		{Key: "write-timeout", Usage: "longest time from a request's headers to the end of its answer", field: func(c *Config) any { return &c.WriteTimeout }},
		{Key: "idle-timeout", Usage: "longest wait for the next request of a connection", field: func(c *Config) any { return &c.IdleTimeout }},
		{Key: "drain-delay", Usage: "how long requests are still taken when the server was told to end and is no longer ready", field: func(c *Config) any { return &c.DrainDelay }},
		{Key: "shutdown-timeout", Usage: "how long requests under way may take after that", field: func(c *Config) any { return &c.ShutdownTimeout }},
		{Key: "max-header-bytes", Usage: "largest request line and headers", field: func(c *Config) any { return &c.MaxHeaderBytes }},
		{Key: "max-headers", Usage: "most headers of a request", field: func(c *Config) any { return &c.MaxHeaders }},
		{Key: "max-connections", Usage: "most open connections of the API and of Envoy's listener", field: func(c *Config) any { return &c.MaxConnections }},
		{Key: "max-connections-per-address", Usage: "most open connections of one client address; 0 for no limit", field: func(c *Config) any { return &c.MaxConnectionsPerAddress }},
		{Key: "max-streams", Usage: "most requests under way on one connection over HTTP/2 or gRPC", field: func(c *Config) any { return &c.MaxStreams }},
		{Key: "decision-log", Usage: "keep a line for every decision in the data directory", Bool: true, field: func(c *Config) any { return &c.DecisionLog }},
		{Key: "decision-log-full", Usage: "of new policy stores, a decision that the log can't take: drop (give it, count it as lost) or wait (none before it is on disk)", field: func(c *Config) any { return &c.DecisionLogFull }},
		{Key: "decision-log-segment-bytes", Usage: "size at which a file of the decision log is closed", field: func(c *Config) any { return &c.DecisionLogSegmentBytes }},
		{Key: "decision-log-segment-age", Usage: "age at which it is closed", field: func(c *Config) any { return &c.DecisionLogSegmentAge }},
		{Key: "decision-log-retain-bytes", Usage: "size of all its files at which the oldest go", field: func(c *Config) any { return &c.DecisionLogRetainBytes }},
		{Key: "decision-log-retain-age", Usage: "age at which they go", field: func(c *Config) any { return &c.DecisionLogRetainAge }},
		{Key: "decision-log-export", Usage: "write decisions also to stdout, file:PATH or otlp:URL", field: func(c *Config) any { return &c.DecisionLogExport }},
		{Key: "trace-endpoint", Usage: "URL of an OTLP/HTTP receiver of traces, such as http://127.0.0.1:4318/v1/traces; empty for no traces", field: func(c *Config) any { return &c.TraceEndpoint }},
		{Key: "trace-ratio", Usage: "share of requests that are traced, 0 to 1", field: func(c *Config) any { return &c.TraceRatio }},
		{Key: "trace-parents", Usage: "believe the traceparent header of callers", Bool: true, field: func(c *Config) any { return &c.TraceParents }},
		{Key: "trace-tenants", Usage: "put the tenant's id into spans", Bool: true, field: func(c *Config) any { return &c.TraceTenants }},
		{Key: "log-level", Usage: "least important lines to log: debug, info, warn or error", field: func(c *Config) any { return &c.LogLevel }},
		{Key: "log-format", Usage: "form of the log on standard error: text or json", field: func(c *Config) any { return &c.LogFormat }},
	}
}

// Set gives a setting its value from text: what a flag or an environment variable holds.
func (c *Config) Set(key, value string) error {
	for _, s := range Settings() {
		if s.Key == key {
			return s.set(c, value)
		}
	}
	if near := nearest(key); near != "" {
		return copse.Errorf(copse.Invalid, "there is no setting %q; did you mean %s?", key, near)
	}
	return copse.Errorf(copse.Invalid, "there is no setting %q; docs/configuration.md lists them", key)
}

// set does not quote a secret in its error: text is taken as it is, so only other types have one.
func (s Setting) set(c *Config, value string) error {
	var err error
	want := ""
	switch p := s.field(c).(type) {
	case *string:
		*p = value
	case *access.Secret:
		*p = access.Secret(value)
	case *bool:
		*p, err = strconv.ParseBool(value)
		want = "true or false"
	case *int:
		*p, err = strconv.Atoi(value)
		want = "a whole number"
	case *int64:
		*p, err = strconv.ParseInt(value, 10, 64)
		want = "a whole number"
	case *float64:
		*p, err = strconv.ParseFloat(value, 64)
		want = "a number such as 0.01"
	case *time.Duration:
		*p, err = time.ParseDuration(value)
		want = "a duration such as 30s or 2m"
	}
	if err != nil {
		return copse.Errorf(copse.Invalid, "%q is not %s", value, want)
	}
	return nil
}

// Validate refuses what can't be served or would not be safe.
// It touches no file and no socket; see [Config.ValidateFiles] and [Config.ValidateListen].
func (c *Config) Validate() error {
	if c.DataDir == "" && !c.InMemory {
		return copse.Errorf(copse.Invalid, "no data directory: set --data (COPSE_DATA)")
	}
	if (c.RootAccessKeyID == "") != (c.RootSecretAccessKey == "") {
		return copse.Errorf(copse.Invalid, "COPSE_ROOT_ACCESS_KEY_ID and COPSE_ROOT_SECRET_ACCESS_KEY go together: set both or neither")
	}
	if c.RootAccessKeyID != "" {
		if err := access.CheckRootKey(c.RootAccessKeyID, c.RootSecretAccessKey); err != nil {
			return err
		}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return copse.Errorf(copse.Invalid, "--tls-cert and --tls-key go together: set both or neither")
	}
	if c.TLSClientCA != "" && c.TLSCert == "" {
		return copse.Errorf(copse.Invalid, "--tls-client-ca needs --tls-cert and --tls-key: only over TLS do clients show certificates")
	}
	if len(c.AccountID) != 12 || strings.Trim(c.AccountID, "0123456789") != "" {
		return copse.Errorf(copse.Invalid, "--account-id %q does not have twelve digits", c.AccountID)
	}
	if c.MaxConnectionsPerAddress < 0 {
		return copse.Errorf(copse.Invalid, "--max-connections-per-address %d is below zero; 0 is no limit", c.MaxConnectionsPerAddress)
	}
	if c.DrainDelay < 0 {
		return copse.Errorf(copse.Invalid, "--drain-delay %s is below zero; 0 ends without one", c.DrainDelay)
	}
	if c.MinFreeBytes < 0 {
		return copse.Errorf(copse.Invalid, "--min-free-bytes %d is below zero; 0 asks for no room", c.MinFreeBytes)
	}
	if err := c.validatePublicURL(); err != nil {
		return err
	}
	if err := c.validateDecisionLog(); err != nil {
		return err
	}
	if c.AllowHTTPIssuers && !c.AllowPrivateIssuers {
		return copse.Errorf(copse.Invalid, "--allow-http-issuers is for loopback issuers: it needs --allow-private-issuers as well")
	}
	if !(c.TraceRatio >= 0 && c.TraceRatio <= 1) {
		return copse.Errorf(copse.Invalid, "--trace-ratio %v is not between 0 and 1", c.TraceRatio)
	}
	if c.TraceEndpoint != "" && !decisionlog.IsCollectorURL(c.TraceEndpoint) {
		return copse.Errorf(copse.Invalid, "--trace-endpoint is not an http or https URL without a user, a query or a fragment; an example is http://127.0.0.1:4318/v1/traces")
	}
	if _, err := NewLogHandler(io.Discard, c.LogLevel, c.LogFormat); err != nil {
		return err
	}
	for _, d := range []struct {
		key   string
		value int64
	}{
		{"snapshot-cache-bytes", c.SnapshotCacheBytes}, {"max-header-bytes", int64(c.MaxHeaderBytes)},
		{"max-headers", int64(c.MaxHeaders)}, {"max-connections", int64(c.MaxConnections)}, {"max-streams", int64(c.MaxStreams)},
		{"read-header-timeout", int64(c.ReadHeaderTimeout)}, {"read-timeout", int64(c.ReadTimeout)},
		{"write-timeout", int64(c.WriteTimeout)}, {"idle-timeout", int64(c.IdleTimeout)},
		{"shutdown-timeout", int64(c.ShutdownTimeout)}, {"backup-every", int64(c.BackupEvery)}, {"backup-keep", int64(c.BackupKeep)},
		{"decision-log-segment-bytes", c.DecisionLogSegmentBytes}, {"decision-log-segment-age", int64(c.DecisionLogSegmentAge)},
		{"decision-log-retain-bytes", c.DecisionLogRetainBytes}, {"decision-log-retain-age", int64(c.DecisionLogRetainAge)},
	} {
		if d.value <= 0 {
			return copse.Errorf(copse.Invalid, "--%s must be greater than zero", d.key)
		}
	}
	return nil
}

// NewLogHandler is what a program makes its log of, by LogLevel and LogFormat; empty ones are info and text.
func NewLogHandler(w io.Writer, level, format string) (slog.Handler, error) {
	options := &slog.HandlerOptions{}
	if level != "" {
		var least slog.Level
		if err := least.UnmarshalText([]byte(level)); err != nil {
			return nil, copse.Errorf(copse.Invalid, "--log-level is debug, info, warn or error, not %q", level)
		}
		options.Level = least
	}
	switch format {
	case "", "text":
		return slog.NewTextHandler(w, options), nil
	case "json":
		return slog.NewJSONHandler(w, options), nil
	}
	return nil, copse.Errorf(copse.Invalid, "--log-format is text or json, not %q", format)
}

// validatePublicURL keeps anything out that a service could configure in a second spelling.
func (c *Config) validatePublicURL() error {
	if c.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil ||
		u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return copse.Errorf(copse.Invalid, "--public-url must be https and a host (http for loopback), without a path, a slash at the end, or a password")
	}
	return nil
}

// ValidateListen is apart from Validate because a configuration used in process never listens.
func (c *Config) ValidateListen() error {
	if err := c.validateAPIAddress("listen", c.Listen, "127.0.0.1:8420"); err != nil {
		return err
	}
	if c.ExtAuthzListen != "" {
		if err := c.validateAPIAddress("ext-authz-listen", c.ExtAuthzListen, "127.0.0.1:8422"); err != nil {
			return err
		}
	}
	if c.OpsListen == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(c.OpsListen); err != nil {
		return copse.Errorf(copse.Invalid, "--ops-listen %q is not an address such as 127.0.0.1:8421: %w", c.OpsListen, err)
	}
	return nil
}

// validateAPIAddress holds for the listeners that tokens come to.
func (c *Config) validateAPIAddress(setting, address, example string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return copse.Errorf(copse.Invalid, "--%s %q is not an address such as %s: %w", setting, address, example, err)
	}
	if c.TLSCert == "" && !c.BehindTLSProxy && !isLoopback(host) {
		return copse.Errorf(copse.Invalid, "--%s %s is reachable from other machines, and tokens and keys would travel in the clear: give --tls-cert and --tls-key, or state --behind-tls-proxy, or listen on 127.0.0.1", setting, address)
	}
	return nil
}

// isLoopback takes addresses and the name localhost only: what any other name means is up to a
// resolver.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
