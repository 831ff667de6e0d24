//! Tokens of an issuer of the test's own, and Envoy's `jwt_authn` that trusts it.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand_core::OsRng;
use rsa::RsaPrivateKey;
use rsa::pkcs1v15::SigningKey;
use rsa::sha2::Sha256;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};

const NAME: &str = "https://issuer.lab";
const KEY: &str = "the-key";

/// Who signs tokens, by RS256.
pub struct Issuer(SigningKey<Sha256>);

impl Issuer {
    pub fn new() -> Self {
        Self(SigningKey::new(RsaPrivateKey::new(&mut OsRng, 2048).unwrap()))
    }

    /// Puts `jwt_authn` in front of the filter: no request without a token of this issuer.
    pub fn guard(&self, connection_manager: &mut Value) {
        let filter = json!({
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": {
                    "lab": {
                        "issuer": NAME,
                        "local_jwks": { "inline_string": self.key_set().to_string() },
                        "payload_in_metadata": "payload",
                    },
                },
                "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "lab" } }],
            },
        });
        connection_manager["http_filters"].as_array_mut().unwrap().insert(0, filter);
    }

    /// A token that is valid for an hour.
    pub fn token(&self, claims: Value) -> String {
        self.sign(&json!({ "alg": "RS256", "kid": KEY }), &with_standard_claims(claims, 3600))
    }

    /// A token that was valid until an hour ago.
    pub fn expired(&self, claims: Value) -> String {
        self.sign(&json!({ "alg": "RS256", "kid": KEY }), &with_standard_claims(claims, -3600))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(signed.as_bytes()).to_vec();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The public key, as RFC 7517 has it.
    fn key_set(&self) -> Value {
        let key = self.0.as_ref();
        let number = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
        json!({ "keys": [{ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": KEY, "n": number(key.n()), "e": number(key.e()) }] })
    }
}

/// A token that says that it needs no signature.
pub fn unsigned(claims: Value) -> String {
    let header = json!({ "alg": "none", "kid": KEY });
    format!("{}.{}.", part(&header), part(&with_standard_claims(claims, 3600)))
}

/// A token with other claims under the signature of the first.
pub fn altered(token: &str, claims: Value) -> String {
    let mut parts = token.split('.');
    let (header, _, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    format!("{header}.{}.{signature}", part(&with_standard_claims(claims, 3600)))
}

fn with_standard_claims(mut claims: Value, lasts: i64) -> Value {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs();
    claims["iss"] = json!(NAME);
    claims["exp"] = json!(i64::try_from(now).unwrap() + lasts);
    claims
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}
