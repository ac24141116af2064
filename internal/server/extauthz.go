package server

import (
	"context"
	"crypto/tls"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"

	"github.com/copse-authz/copse"
)

// minPing is how often a client may ask whether the server is there. Envoy asks when it is told to.
const minPing = 10 * time.Second

// grpcServer answers Envoy, within the limits of the other listeners.
// secure is nil for plain HTTP/2. It is made whether or not there is a listener for it.
func (s *Server) grpcServer(secure *tls.Config) *grpc.Server {
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(copse.MaxRequestBytes),
		grpc.MaxHeaderListSize(uint32(s.cfg.MaxHeaderBytes)),
		grpc.MaxConcurrentStreams(uint32(s.cfg.MaxStreams)),
		grpc.ConnectionTimeout(s.cfg.ReadHeaderTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: s.cfg.IdleTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.InTapHandle(s.boundCheck),
	}
	if secure != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(secure)))
	}
	server := grpc.NewServer(options...)
	authv3.RegisterAuthorizationServer(server, s.extAuthz)
	return server
}

// boundCheck ends a request that does not come to its end, and the decision with it. gRPC has no such
// limit of its own but the caller's.
func (s *Server) boundCheck(ctx context.Context, _ *tap.Info) (context.Context, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout) //nolint:gosec // the request's context, which gRPC ends, gives back what the timer holds
	_ = cancel
	return ctx, nil
}
