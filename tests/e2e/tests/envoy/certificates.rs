//! Callers with certificates: an authority of the test's own, and Envoy that asks for what it has signed.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The authority that Envoy and its callers trust.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        // A certificate whose issuer has its own name would look as if it had signed itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Makes the listener speak TLS; a caller may show a certificate, which must be of this authority.
    pub fn guard(&self, bootstrap: &mut Value) {
        let names = vec!["127.0.0.1".to_owned()];
        let (certificate, key) = self.sign(CertificateParams::new(names).unwrap());
        bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": false,
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [{
                        "certificate_chain": { "inline_string": certificate.pem() },
                        "private_key": { "inline_string": key.serialize_pem() },
                    }],
                    "validation_context": { "trusted_ca": { "inline_string": self.certificate.pem() } },
                },
            },
        });
    }

    /// A caller whose certificate bears these names.
    pub fn caller(&self, names: Vec<SanType>) -> Arc<ClientConfig> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let (certificate, key) = self.sign(params);
        self.config(Some((certificate.der().clone(), key)))
    }

    /// A caller without a certificate.
    pub fn stranger(&self) -> Arc<ClientConfig> {
        self.config(None)
    }

    /// A caller who trusts this authority, and signed a certificate with these names by itself.
    pub fn impostor(&self, names: Vec<SanType>) -> Arc<ClientConfig> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        self.config(Some((certificate.der().clone(), key)))
    }

    fn sign(&self, params: CertificateParams) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn config(&self, identity: Option<(CertificateDer<'static>, KeyPair)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

pub fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}
