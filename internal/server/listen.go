package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"google.golang.org/grpc"
)

// ErrAddressInUse is wrapped by [AddressError] when the port is taken.
var ErrAddressInUse = errors.New("address already in use")

// AddressError says which address could not be listened on.
type AddressError struct {
	Setting string // the flag that says it: "listen"
	Address string
	Err     error
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("--%s %s: %v", e.Setting, e.Address, e.Err)
}

func (e *AddressError) Unwrap() error { return e.Err }

// Listen binds the listeners without answering yet. An *AddressError wraps ErrAddressInUse when a
// port is taken.
func (s *Server) Listen() error {
	if s.listener != nil {
		return nil
	}
	if err := s.cfg.ValidateListen(); err != nil {
		return err
	}
	main, err := listen("listen", s.cfg.Listen)
	if err != nil {
		return err
	}
	// All are bound or it is an error; what was bound before it is closed, by Close at the latest.
	for _, other := range []struct {
		setting, address string
		into             *net.Listener
	}{{"ops-listen", s.cfg.OpsListen, &s.opsListener}, {"ext-authz-listen", s.cfg.ExtAuthzListen, &s.extAuthzListener}} {
		if other.address == "" {
			continue
		}
		if *other.into, err = listen(other.setting, other.address); err != nil {
			return errors.Join(err, main.Close())
		}
	}
	// One count for both listeners of clients, and one apart for operations: a flood must not hide what is wrong.
	clients := newConnections(s.maxConnections(), s.cfg.MaxConnectionsPerAddress, s.log)
	clients.register(s.registry)
	s.listener = gate{Listener: main, of: clients, pause: min(s.cfg.DrainDelay, goodbyeTime)}
	if s.extAuthzListener != nil {
		s.extAuthzListener = gate{Listener: s.extAuthzListener, of: clients}
	}
	if s.opsListener != nil {
		s.opsListener = gate{Listener: s.opsListener, of: newConnections(opsConnections, 0, s.log)}
	}
	return s.route()
}

// listen has errors name the setting, since an operator knows that and not the socket.
func listen(setting, address string) (net.Listener, error) {
	ln, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, &AddressError{setting, address, ErrAddressInUse}
	}
	if err != nil {
		return nil, &AddressError{setting, address, err}
	}
	return ln, nil
}

// URL is the base URL of the API, without a slash at the end, known after Listen. It is made from the
// listener's own address and never from what a request says.
func (s *Server) URL() string {
	scheme := "http"
	if s.cfg.TLSCert != "" {
		scheme = "https"
	}
	return baseURL(scheme, s.listener)
}

// OpsURL is that of the operations listener, empty when there is none.
// It is plain HTTP whatever the API speaks: it is meant for this machine, or a network of machines.
func (s *Server) OpsURL() string { return baseURL("http", s.opsListener) }

// Addr is the address the API listens on, after Listen.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// ExtAuthzAddr is the address that Envoy asks, nil when there is none.
func (s *Server) ExtAuthzAddr() net.Addr {
	if s.extAuthzListener == nil {
		return nil
	}
	return s.extAuthzListener.Addr()
}

// baseURL is loopback for a listener on all addresses: it is for people and programs on this machine.
func baseURL(scheme string, ln net.Listener) string {
	if ln == nil {
		return ""
	}
	addr, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(addr.Port))
}

// Serve answers requests until ctx ends, and for DrainDelay after that while /readyz sends callers
// elsewhere. Then it lets those under way finish for at most ShutdownTimeout, and closes everything. It
// calls Listen when nobody did. Its error is nil after a clean end.
func (s *Server) Serve(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return errors.Join(err, s.Close())
	}
	main, ops := s.httpServer(s.handler), s.httpServer(s.opsHandler())
	// Replaced files are noticed until the server is told to end; then what is in use stays so.
	if s.tls != nil {
		main.TLSConfig = s.tls.listenerConfig()
		watching, stop := context.WithCancel(ctx)
		defer stop()
		go s.tls.watch(watching)
	}
	envoy := s.grpcServer(main.TLSConfig)
	// Room for all three, so that none of them waits for a reader when it ends.
	failed := make(chan error, 3)
	go func() { failed <- s.serveMain(main) }()
	if s.opsListener != nil {
		go func() { failed <- ops.Serve(s.opsListener) }()
	}
	if s.extAuthzListener != nil {
		go func() { failed <- envoy.Serve(s.extAuthzListener) }()
	}
	var err error
	s.log.Info("serving", "url", s.URL(), "ops", s.OpsURL(), "extAuthz", baseURL("grpc", s.extAuthzListener))
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	// From here on /readyz says no, and HTTP/1 connections end with their answer.
	s.draining.Store(true)
	if err == nil && s.cfg.DrainDelay > 0 {
		s.log.Info("told to end: not ready any more, requests are still taken for --drain-delay; a second signal ends at once", "delay", s.cfg.DrainDelay)
		time.Sleep(s.cfg.DrainDelay)
	}
	return errors.Join(err, s.shutDown(context.WithoutCancel(ctx), main, ops, envoy), s.Close())
}

// serveMain needs no files: the certificate comes from TLSConfig, at each handshake.
func (s *Server) serveMain(main *http.Server) error {
	if main.TLSConfig != nil {
		return main.ServeTLS(s.listener, "", "")
	}
	return main.Serve(s.listener)
}

// shutDown is not part of the context that ended: requests under way keep theirs. Connections over
// HTTP/2 and gRPC are told (GOAWAY) which of their requests will still be answered. The operations
// listener goes last, so that /readyz says meanwhile that nothing new should come.
func (s *Server) shutDown(ctx context.Context, main, ops *http.Server, envoy *grpc.Server) error {
	s.log.Info("shutting down")
	limited, cancel := context.WithTimeout(ctx, s.cfg.ShutdownTimeout)
	defer cancel()
	ended := make(chan struct{})
	// gRPC has no deadline of its own for this: when the time is up, Stop cuts off what is left.
	go func() {
		defer close(ended)
		defer context.AfterFunc(limited, envoy.Stop)()
		envoy.GracefulStop()
	}()
	err := main.Shutdown(limited)
	<-ended
	// Shutdown leaves open what it could not wait for; Close does not.
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("requests were still under way at the end of --shutdown-timeout, and were cut off")
		err = main.Close()
	}
	return errors.Join(err, ops.Close())
}

// httpServer is a server within the configured limits, each of which is against one way to hold a connection.
func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: s.cfg.ReadHeaderTimeout,
		ReadTimeout:       s.cfg.ReadTimeout,
		WriteTimeout:      s.cfg.WriteTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    s.cfg.MaxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: s.cfg.MaxStreams,
			WriteByteTimeout:     s.cfg.WriteTimeout, // the other limits are a request's: this is for a client that reads nothing at all
			CountError:           func(string) { s.http2Errors.Inc() },
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}
