//! Where the key of a sticky split or of a rate limit comes from.

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// A request header, in lower case; every value counts, and a missing one is a value of its own.
    Header(Box<str>),
    /// A claim of the token that Envoy's `jwt_authn` verified.
    JwtClaim(Box<str>),
    /// The caller's address without the port.
    SourceIp,
    /// The subject alternative name of the caller's certificate.
    PeerSan,
    /// The asked model name.
    Model,
    /// The asked version; none is a value of its own.
    Version,
    Method,
}
