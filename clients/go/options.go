package latentserve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Defaults of a [Client].
const (
	// DefaultTimeout is the deadline of a call whose context has none.
	DefaultTimeout = 10 * time.Second
	// DefaultReloadTimeout is that of [Client.ReloadModels], where models are loaded and checked.
	DefaultReloadTimeout = 120 * time.Second
	// DefaultMaxMessageBytes bounds one request and one reply.
	DefaultMaxMessageBytes = 64 << 20
)

type settings struct {
	model           string
	timeout         time.Duration
	waitForReady    bool
	maxMessageBytes int
	tls             *tls.Config
	token           string
	insecureToken   bool
	dial            []grpc.DialOption
}

// Option sets something of a [Client].
type Option func(*settings)

// WithModel names the model of calls that name none: "NAME", or "NAME:VERSION". Without it they
// go to the server's default model.
func WithModel(model string) Option { return func(s *settings) { s.model = model } }

// WithTimeout sets the deadline of calls whose context has none, attempts and waiting included;
// of a stream, for the whole of it. 10 s unless set.
func WithTimeout(timeout time.Duration) Option { return func(s *settings) { s.timeout = timeout } }

// WithWaitForReady makes calls wait, within their deadline, for a server that cannot be reached
// yet, instead of failing at once.
func WithWaitForReady() Option { return func(s *settings) { s.waitForReady = true } }

// WithMaxMessageBytes bounds one request and one reply; 64 MiB unless set.
func WithMaxMessageBytes(n int) Option { return func(s *settings) { s.maxMessageBytes = n } }

// WithTLS encrypts the connection; see [LoadTLS]. An empty configuration trusts the authorities
// that this machine trusts. Without this option it is plain text.
func WithTLS(config *tls.Config) Option { return func(s *settings) { s.tls = config } }

// WithToken sends a bearer token with each call. Needs [WithTLS]: in plain text, whoever is on
// the way could read it.
func WithToken(token string) Option { return func(s *settings) { s.token = token } }

// WithInsecureToken sends a bearer token also without TLS: for a connection that something else
// protects, such as a sidecar on the same machine.
func WithInsecureToken(token string) Option {
	return func(s *settings) { s.token, s.insecureToken = token, true }
}

// WithDialOptions adds options of grpc-go behind those of this package, for example interceptors
// or statistics; with grpc.WithDisableRetry, nothing is tried again.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

// LoadTLS returns a configuration from PEM files: the authority that signed the server's
// certificate (empty: those that this machine trusts), and this client's own certificate and key
// where the server asks for one (empty otherwise).
func LoadTLS(caFile, certFile, keyFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("latentserve: a client certificate and its key belong together; one is missing")
	}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("latentserve: authority: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("latentserve: %s holds no PEM certificate", caFile)
		}
	}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("latentserve: client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// security returns the dial options for TLS and the token.
func (s *settings) security() ([]grpc.DialOption, error) {
	transport := insecure.NewCredentials()
	if s.tls != nil {
		transport = credentials.NewTLS(s.tls)
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(transport)}
	if s.token == "" {
		if s.insecureToken {
			return nil, errors.New("latentserve: the token is empty")
		}
		return options, nil
	}
	if s.tls == nil && !s.insecureToken {
		return nil, errors.New("latentserve: a token in plain text can be read on the way; " +
			"use WithTLS, or WithInsecureToken where something else protects the connection")
	}
	return append(options, grpc.WithPerRPCCredentials(bearer{s.token, !s.insecureToken})), nil
}

type bearer struct {
	token  string
	secure bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.secure }
