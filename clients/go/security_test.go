package latentserve_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	latentserve "github.com/latentserve/latentserve/clients/go"
	"github.com/latentserve/latentserve/clients/go/internal/fakeserver"
	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// authority signs certificates and writes them as PEM files.
type authority struct {
	t           *testing.T
	folder      string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, folder: t.TempDir()}
	a.certificate, a.key = a.sign("ca", &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

func (a *authority) sign(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", keyDER)
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return certificate, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.folder, name) }

// recordToken returns a server that stores the received token.
func recordToken(got *string) *fakeserver.Server {
	return &fakeserver.Server{OnSample: func(ctx context.Context, _ *pb.SampleRequest) (*pb.SampleResponse, error) {
		*got = fakeserver.Metadata(ctx, "authorization")
		return &pb.SampleResponse{Images: onePixel(1)}, nil
	}}
}

func TestTLSWithCustomAuthorityClientCertificateAndToken(t *testing.T) {
	a := newAuthority(t)
	a.sign("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	a.sign("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pair, err := tls.LoadX509KeyPair(a.file("server.pem"), a.file("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	var got string
	address := recordToken(&got).Start(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	sample := func(ca, cert, key string) error {
		config, err := latentserve.LoadTLS(ca, cert, key)
		if err != nil {
			t.Fatal(err)
		}
		client := open(t, address, latentserve.WithTLS(config), latentserve.WithToken("secret"),
			latentserve.WithDialOptions(grpc.WithDisableRetry()))
		_, err = client.Sample(t.Context(), latentserve.SampleRequest{Count: 1})
		return err
	}
	if err := sample(a.file("ca.pem"), a.file("client.pem"), a.file("client.key")); err != nil {
		t.Fatal(err)
	}
	if got != "Bearer secret" {
		t.Errorf("the server got %q", got)
	}
	if failure := failureOf(t, sample(a.file("ca.pem"), "", "")); failure.Code != codes.Unavailable {
		t.Errorf("without a certificate: %v", failure)
	}
	untrusted := newAuthority(t)
	failure := failureOf(t, sample(untrusted.file("ca.pem"), a.file("client.pem"), a.file("client.key")))
	if failure.Code != codes.Unavailable || !strings.Contains(failure.Message, "certificate") {
		t.Errorf("with another authority: %v", failure)
	}
}

func TestATokenRequiresTLS(t *testing.T) {
	if _, err := latentserve.New("127.0.0.1:1", latentserve.WithToken("secret")); err == nil || !strings.Contains(err.Error(), "WithInsecureToken") {
		t.Errorf("got %v", err)
	}
	var got string
	client := connect(t, recordToken(&got), latentserve.WithInsecureToken("secret"))
	if _, err := client.Sample(t.Context(), latentserve.SampleRequest{Count: 1}); err != nil {
		t.Fatal(err)
	}
	if got != "Bearer secret" {
		t.Errorf("the server got %q", got)
	}
}

func TestInvalidSettingsAreRefused(t *testing.T) {
	for name, option := range map[string]latentserve.Option{
		"model":       latentserve.WithModel("mnist-vae:new"),
		"timeout":     latentserve.WithTimeout(0),
		"bytes":       latentserve.WithMaxMessageBytes(0),
		"empty token": latentserve.WithInsecureToken(""),
	} {
		if _, err := latentserve.New("127.0.0.1:1", option); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := latentserve.New("dns:///localhost:1"); err != nil {
		t.Errorf("round robin: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, files := range [][3]string{{missing, "", ""}, {"", missing, missing}, {"", missing, ""}} {
		if _, err := latentserve.LoadTLS(files[0], files[1], files[2]); err == nil {
			t.Errorf("%v: accepted", files)
		}
	}
}
