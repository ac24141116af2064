package decisionlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// ExportConfig says where a second copy of every decision goes: exactly one of Writer, File and Collector.
type ExportConfig struct {
	Writer    io.Writer
	File      string // appended to
	Collector string // base URL of an OpenTelemetry collector that takes OTLP over HTTP
	Log       *slog.Logger
	Metrics   prometheus.Registerer
}

// Export copies entries elsewhere, from a bounded queue of its own: a collector that is away costs copies,
// which are counted, and never the log or a decision.
type Export struct {
	send   func([][]byte) error
	end    func() error
	log    *slog.Logger
	lost   prometheus.Counter
	queue  chan []byte
	stop   chan struct{}
	once   sync.Once
	work   sync.WaitGroup
	failed bool
}

const (
	exportQueue = 16 << 10         // entries; beyond it copies are counted as lost
	exportBatch = 512              // entries in one delivery
	exportWait  = 10 * time.Second // for a collector's answer, and so for Close
)

// IsCollectorURL refuses where a credential could be: the URL is shown and logged, and a path is put behind it.
func IsCollectorURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") && u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == ""
}

// NewExport opens what is written to. A collector is not asked before there is something for it.
func NewExport(cfg ExportConfig) (*Export, error) {
	x := &Export{
		log: cfg.Log, queue: make(chan []byte, exportQueue), stop: make(chan struct{}), end: func() error { return nil },
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "copse_decision_log_export_lost_total",
			Help: "Decisions that are in the decision log and could not be copied elsewhere."}),
	}
	if x.log == nil {
		x.log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Collector != "":
		if !IsCollectorURL(cfg.Collector) {
			// Not quoted: what is wrong with it may be that there is a password in it.
			return nil, copse.Errorf(copse.Invalid, "decision log export: that is not the URL of a collector, such as http://127.0.0.1:4318, without a user, a query or a fragment")
		}
		client := &http.Client{Timeout: exportWait}
		target := strings.TrimSuffix(cfg.Collector, "/") + "/v1/logs"
		x.send = func(entries [][]byte) error { return sendOTLP(client, target, entries) }
	case cfg.File != "":
		f, err := os.OpenFile(cfg.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, copse.Errorf(copse.Invalid, "decision log export: %w", err)
		}
		x.send, x.end = sendLines(f), f.Close
	default:
		x.send = sendLines(cfg.Writer)
	}
	if cfg.Metrics != nil {
		if err := cfg.Metrics.Register(x.lost); err != nil {
			return nil, errors.Join(err, x.end())
		}
	}
	x.work.Go(x.run)
	return x, nil
}

// Write takes a copy of an entry, and does not block: it is called with the log's writer held.
func (x *Export) Write(entry []byte) {
	select {
	case x.queue <- bytes.Clone(entry):
	default:
		x.lost.Inc()
	}
}

// Close sends what is queued, once.
func (x *Export) Close() error {
	x.once.Do(func() { close(x.stop) })
	x.work.Wait()
	return x.end()
}

// run sends what has come together when there is something, and a full batch in between. When it is told to end it sends
// what is queued, once.
func (x *Export) run() {
	var batch [][]byte
	for ended := false; !ended; {
		select {
		case entry := <-x.queue:
			batch = append(batch, entry)
		case <-x.stop:
			ended = true
		}
		for more := true; more; {
			select {
			case entry := <-x.queue:
				batch = append(batch, entry)
			default:
				more = false
			}
			if len(batch) >= exportBatch {
				batch = x.flush(batch, ended)
			}
		}
		batch = x.flush(batch, ended)
	}
}

var errEnding = errors.New("the server ends, and the last copies could not be delivered")

// flush sends a batch or counts it as lost: there is no second try, since the next batch would wait for it and then the
// queue. The log is told of the first failure in a row only.
func (x *Export) flush(batch [][]byte, ending bool) [][]byte {
	if len(batch) == 0 {
		return batch
	}
	err := errEnding
	if !ending || !x.failed { // a collector that is away must not hold up the end, batch by batch
		err = x.send(batch)
	}
	if err != nil {
		x.lost.Add(float64(len(batch)))
		if !x.failed {
			x.log.Warn("decisions can't be copied to where they are exported; they are in the decision log", "error", err)
		}
	}
	x.failed = err != nil
	clear(batch)
	return batch[:0]
}

// sendLines writes a batch in one call, so that lines of two processes that append to one file do not mix.
func sendLines(w io.Writer) func([][]byte) error {
	return func(entries [][]byte) error {
		var out []byte
		for _, entry := range entries {
			out = append(append(out, entry...), '\n')
		}
		_, err := w.Write(out)
		return err
	}
}

// The parts of OTLP's JSON form that a log record needs. A collector takes it on the same path as protocol
// buffers, so nothing but net/http is needed to speak to one.
type (
	otlpLogs struct {
		ResourceLogs []otlpResource `json:"resourceLogs"`
	}
	otlpResource struct {
		Resource  otlpAttributes `json:"resource"`
		ScopeLogs []otlpScope    `json:"scopeLogs"`
	}
	otlpScope struct {
		Scope      otlpName     `json:"scope"`
		LogRecords []otlpRecord `json:"logRecords"`
	}
	otlpName struct {
		Name string `json:"name"`
	}
	otlpRecord struct {
		TimeUnixNano   string     `json:"timeUnixNano"`
		SeverityNumber int        `json:"severityNumber"`
		SeverityText   string     `json:"severityText"`
		Body           otlpValue  `json:"body"`
		Attributes     []otlpPair `json:"attributes"`
	}
	otlpAttributes struct {
		Attributes []otlpPair `json:"attributes"`
	}
	otlpPair struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		StringValue string `json:"stringValue"`
	}
)

// otlpInfo is INFO in OpenTelemetry's scale of severities.
const otlpInfo = 9

// sendOTLP posts a batch as log records. What collectors look for stands in attributes; the entry is the body, as it is in
// the log.
func sendOTLP(client *http.Client, target string, entries [][]byte) error {
	records := make([]otlpRecord, len(entries))
	for i, entry := range entries {
		var d Decision
		if err := json.Unmarshal(jsontext.Value(entry), &d); err != nil {
			return err
		}
		text := func(key, value string) otlpPair { return otlpPair{key, otlpValue{value}} }
		records[i] = otlpRecord{
			TimeUnixNano:   strconv.FormatInt(d.Time.UnixNano(), 10),
			SeverityNumber: otlpInfo, SeverityText: "INFO", Body: otlpValue{string(entry)},
			Attributes: []otlpPair{
				text("copse.tenant", string(d.Tenant)), text("copse.policy_store", string(d.PolicyStoreID)), text("copse.decision", d.Decision),
				text("copse.principal", d.Principal), text("copse.action", d.Action), text("copse.resource", d.Resource), text("copse.request_id", d.RequestID),
			},
		}
	}
	body, err := json.Marshal(otlpLogs{[]otlpResource{{
		Resource:  otlpAttributes{[]otlpPair{{"service.name", otlpValue{"copse"}}}},
		ScopeLogs: []otlpScope{{otlpName{"copse.decisions"}, records}},
	}}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the collector answers %s", resp.Status)
	}
	return nil
}
