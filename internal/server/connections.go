package server

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// ownFiles is how many files a server needs for itself: database, logs, keys to fetch, backups, the
	// operations listener. Connections leave so many to it.
	ownFiles = 128
	// opsConnections is the limit of the operations listener, which has its own so that it can be asked what
	// is wrong when there are too many of the others.
	opsConnections = 64
	// sayAgain is how often a log line is repeated while clients are turned away.
	sayAgain = 10 * time.Second
	// goodbyeTime is how long clients have between GOAWAY and the end of an idle connection.
	goodbyeTime = 250 * time.Millisecond
)

// connections bounds and counts the connections of some listeners together. One over the limit is closed at
// once: left waiting, it would hold a place in the kernel's queue, and its client would not know.
type connections struct {
	limit, perAddress int // perAddress may be 0: no limit
	log               *slog.Logger

	refused                    *prometheus.CounterVec
	refusedAll, refusedAddress prometheus.Counter // of refused
	failed                     prometheus.Counter

	mu        sync.Mutex
	open      int
	byAddress map[netip.Prefix]int
	said      time.Time
}

// newConnections makes one for listeners that share a limit; it registers nothing.
func newConnections(limit, perAddress int, log *slog.Logger) *connections {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_http_connections_refused_total", Help: "Connections that were closed at once: over the limit of all, or of their address."}, []string{"reason"})
	return &connections{
		limit: limit, perAddress: perAddress, log: log, byAddress: map[netip.Prefix]int{}, refused: refused,
		refusedAll: refused.WithLabelValues("limit"), refusedAddress: refused.WithLabelValues("address"),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "copse_http_accept_failures_total", Help: "Connections that could not be taken: the process may open no more files."}),
	}
}

// register has metrics tell of them. Those of the operations listener are in no metric.
// Once for each registry.
func (c *connections) register(reg prometheus.Registerer) {
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "copse_http_connections", Help: "Open connections of the API's and Envoy's listeners."}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(c.open)
	})
	reg.MustRegister(open, c.refused, c.failed)
}

// maxConnections is what was asked for, or what the limit of open files allows: else the files would run
// out first, and the server's own with them.
func (s *Server) maxConnections() int {
	files, known := openFileLimit()
	if !known || files >= uint64(s.cfg.MaxConnections)+ownFiles {
		return s.cfg.MaxConnections
	}
	allowed := max(int(files)-ownFiles, 1)
	s.log.Warn("this process may open too few files for --max-connections; more connections than this are refused",
		"files", files, "maxConnections", s.cfg.MaxConnections, "connections", allowed)
	return allowed
}

// gate is a listener whose connections are counted.
type gate struct {
	net.Listener
	of *connections
	// pause is how slow it is to tell that it was closed. http.Server.Shutdown closes listeners, has GOAWAY
	// sent, waits for Accept to return, and then closes what is idle: without a pause, some connections are
	// closed before GOAWAY is out, under a request that may be on its way.
	pause time.Duration
}

func (g gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			time.Sleep(g.pause)
			return nil, err
		}
		// For want of files, as a rule: the connection waits in the kernel's queue until there are some.
		if err != nil { // net/http and gRPC try again, after a moment
			g.of.failed.Inc()
			g.of.say("a connection can't be taken; those there are go on", "error", err)
			return nil, err
		}
		// What is refused is closed here, and the next one is waited for: net/http never sees it.
		if tcp, ok := conn.(*net.TCPConn); ok {
			if admitted := g.of.admit(tcp); admitted != nil {
				return admitted, nil
			}
		}
		_ = conn.Close()
	}
}

// admit is nil when there are too many.
// The caller then closes conn. What it returns gives its place back when it is closed, however often that is.
func (c *connections) admit(conn *net.TCPConn) net.Conn {
	address := addressOf(conn.RemoteAddr())
	c.mu.Lock()
	all, own := c.open >= c.limit, c.perAddress > 0 && c.byAddress[address] >= c.perAddress
	if !all && !own {
		c.open++
		c.byAddress[address]++
	}
	c.mu.Unlock()
	switch {
	case all:
		c.refusedAll.Inc()
		c.say("connections are refused: there are as many as --max-connections or the limit of open files allows", "connections", c.limit)
		return nil
	case own:
		c.refusedAddress.Inc()
		c.say("connections of an address are refused: it has as many as --max-connections-per-address allows", "address", address)
		return nil
	}
	return &place{TCPConn: conn, giveBack: sync.OnceFunc(func() { c.release(address) })}
}

// release forgets an address without connections, or the map would grow with everybody who ever came.
func (c *connections) release(address netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if c.byAddress[address]--; c.byAddress[address] == 0 {
		delete(c.byAddress, address)
	}
}

// say says one thing in a while: a flood of connections is not to be one of lines. A log that is slow
// must not hold up those that close.
func (c *connections) say(what string, args ...any) {
	now := time.Now()
	c.mu.Lock()
	due := now.Sub(c.said) >= sayAgain
	if due {
		c.said = now
	}
	c.mu.Unlock()
	if due {
		c.log.Warn(what, args...)
	}
}

// addressOf is whom a connection counts for. Whoever has an IPv6 address has all 2^64 of its network.
// An IPv4 address counts as the same in either form. What is no TCP address counts for all such together.
func addressOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.WithZone("").Prefix(bits)
	return prefix
}

// place is a connection that gives its place back. It stays a TCP connection to net/http, which closes
// those in two steps, so that a client can read the end of an answer.
type place struct {
	*net.TCPConn
	giveBack func()
}

func (p *place) Close() error {
	defer p.giveBack()
	return p.TCPConn.Close()
}
