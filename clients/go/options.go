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

// Default settings of a [Client].
const (
	// DefaultTimeout is the timeout of a call whose context has no deadline.
	DefaultTimeout = 10 * time.Second
	// DefaultReloadTimeout is the timeout of [Client.ReloadModels], which loads and checks models.
	DefaultReloadTimeout = 120 * time.Second
	// DefaultMaxMessageBytes is the maximum size of a request or reply in bytes.
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

// Option is a setting of a [Client].
type Option func(*settings)

// WithModel sets the model of requests that name none: "NAME" or "NAME:VERSION". Without it, they
// use the server's default model.
func WithModel(model string) Option { return func(s *settings) { s.model = model } }

// WithTimeout sets the timeout of calls whose context has no deadline. It includes all attempts and
// backoff, and for a stream all of its chunks. The default is 10 s.
func WithTimeout(timeout time.Duration) Option { return func(s *settings) { s.timeout = timeout } }

// WithWaitForReady makes calls wait until their deadline for a server that cannot be reached,
// instead of failing at once.
func WithWaitForReady() Option { return func(s *settings) { s.waitForReady = true } }

// WithMaxMessageBytes sets the maximum size of a request or reply in bytes; the default is 64 MiB.
func WithMaxMessageBytes(n int) Option { return func(s *settings) { s.maxMessageBytes = n } }

// WithTLS encrypts the connection with TLS; see [LoadTLS]. An empty configuration trusts the
// certificate authorities of the system. Without this option, the connection is plaintext.
func WithTLS(config *tls.Config) Option { return func(s *settings) { s.tls = config } }

// WithToken sends a bearer token with each call. Requires [WithTLS], because a token on a plaintext
// connection can be intercepted.
func WithToken(token string) Option { return func(s *settings) { s.token = token } }

// WithInsecureToken sends a bearer token with or without TLS, for a connection that something else
// protects, such as a sidecar on the same machine.
func WithInsecureToken(token string) Option {
	return func(s *settings) { s.token, s.insecureToken = token, true }
}

// WithDialOptions appends options of grpc-go to those of this package, for example interceptors or
// statistics. grpc.WithDisableRetry disables retries.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

// LoadTLS returns a configuration from PEM files: the authority that signed the server's certificate
// (if empty, the certificate authorities of the system), and the client certificate and key (empty
// unless the server requires one).
func LoadTLS(caFile, certFile, keyFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("latentserve: a client certificate requires its key and vice versa; one is missing")
	}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("latentserve: authority: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("latentserve: %s contains no PEM certificate", caFile)
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
		return nil, errors.New("latentserve: a token on a plaintext connection can be intercepted; " +
			"use WithTLS, or WithInsecureToken if something else protects the connection")
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
