// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

//! Tests of TLS, client certificates and tokens.

mod fake;

use fake::{Fake, TEST_TIMEOUT};
use latentserve::{Client, Code, Error, SampleRequest, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Returns a certificate and its key, as PEM.
fn signed(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (
        params.signed_by(&key, authority).unwrap().pem(),
        key.serialize_pem(),
    )
}

async fn sample(client: &Client) -> Result<(), Error> {
    client
        .sample(SampleRequest {
            count: 1,
            ..Default::default()
        })
        .await
        .map(drop)
}

#[tokio::test]
async fn custom_authority_client_certificate_and_token() {
    let trusted = authority();
    let (certificate, key) = signed(&trusted, "127.0.0.1");
    let server = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(trusted.pem()));
    let (address, fake) = fake::start_with(Fake::default(), Some(server)).await;
    let (certificate, key) = signed(&trusted, "client");
    let open = |tls: Tls| {
        let builder = Client::builder(address.to_string())
            .timeout(TEST_TIMEOUT)
            .max_attempts(1);
        builder.tls(tls).token("secret").build().unwrap()
    };
    let tls = Tls::new().authority(trusted.pem());
    sample(&open(tls.clone().identity(&certificate, &key)))
        .await
        .unwrap();
    assert_eq!(fake.saw("authorization").as_deref(), Some("Bearer secret"));
    let error = sample(&open(tls)).await.unwrap_err();
    assert_eq!(
        error.code(),
        Code::Unavailable,
        "without a certificate: {error:?}"
    );
    let untrusted = Tls::new()
        .authority(authority().pem())
        .identity(&certificate, &key);
    let error = sample(&open(untrusted)).await.unwrap_err();
    assert_eq!(
        error.code(),
        Code::Unavailable,
        "with another authority: {error:?}"
    );
    assert!(error.message().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_token_requires_tls() {
    let refused = Client::builder("127.0.0.1:1")
        .token("secret")
        .build()
        .unwrap_err();
    assert!(refused.message().contains("insecure_token"), "{refused}");
    let (address, fake) = fake::start(Fake::default()).await;
    let client = Client::builder(address.to_string())
        .insecure_token("secret")
        .build()
        .unwrap();
    sample(&client).await.unwrap();
    assert_eq!(fake.saw("authorization").as_deref(), Some("Bearer secret"));
    assert!(
        !format!("{client:?}").contains("secret"),
        "the debug output contains the token"
    );
}

#[tokio::test]
async fn invalid_settings_are_refused() {
    let builder = || Client::builder("127.0.0.1:1");
    for (field, builder) in [
        ("model", builder().model("mnist-vae:new")),
        ("timeout", builder().timeout(std::time::Duration::ZERO)),
        ("max_message_bytes", builder().max_message_bytes(0)),
        ("max_attempts", builder().max_attempts(0)),
        ("token", builder().insecure_token("")),
        ("token", builder().insecure_token("a\nb")),
        ("address", Client::builder("http://127.0.0.1:1")),
        ("address", Client::builder("127.0.0.1")),
        ("address", Client::builder("")),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.violations()[0].field, field, "{error}");
    }
    let invalid = builder()
        .tls(Tls::new().identity("invalid", "invalid"))
        .build();
    assert_eq!(invalid.unwrap_err().violations()[0].field, "tls");
}
