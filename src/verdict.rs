//! What is done with a request, as a value.

use std::borrow::Cow;
use std::time::Duration;

use prost::Message;

use crate::units::{ModelId, RouteId, TargetId};

/// What the host is to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let headers and body go on, with these changes made first.
    Forward(Forward),
    /// Keep what there is until more of the body comes, or the hold ends.
    Hold,
    /// Answer in the server's stead.
    Reply(LocalReply),
}

impl Verdict {
    /// Let the request go on as it is.
    pub const PASS: Self = Self::Forward(Forward { to: None, path: None, body: None });
}

/// What is changed on a request before it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forward {
    /// Where the headers lead; none leaves them as they are.
    pub to: Option<To>,
    /// What takes the place of `:path`.
    pub path: Option<String>,
    /// What takes the place of all of the body that is there; `content-length` is no longer true then.
    pub body: Option<Vec<u8>>,
}

/// A target, by its places in the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To {
    pub model: ModelId,
    pub route: RouteId,
    pub target: TargetId,
    /// Whether the route's mirror gets a copy.
    pub is_mirrored: bool,
}

/// Why a request is refused: at once the value of `x-predictgate-reason`, the label of a metric and both status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    RateLimited,
    ModelNotConfigured,
    MalformedRequest,
    ContradictingModelSpec,
    IdentityNotFound,
    RewriteImpossible,
    AdminMethodRefused,
    HoldTimeout,
    NoTargetAvailable,
    Overloaded,
}

/// The canonical gRPC status codes.
///
/// Source: <https://grpc.io/docs/guides/status-codes/>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GrpcStatus {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl GrpcStatus {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    pub fn from_number(number: u64) -> Option<Self> {
        usize::try_from(number).ok().and_then(|place| Self::ALL.get(place)).copied()
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

impl Reason {
    pub const fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::ModelNotConfigured => "model_not_configured",
            Self::MalformedRequest => "malformed_request",
            Self::ContradictingModelSpec => "contradicting_model_spec",
            Self::IdentityNotFound => "identity_not_found",
            Self::RewriteImpossible => "rewrite_impossible",
            Self::AdminMethodRefused => "admin_method_refused",
            Self::HoldTimeout => "hold_timeout",
            Self::NoTargetAvailable => "no_target_available",
            Self::Overloaded => "overloaded",
        }
    }

    pub const fn grpc(self) -> GrpcStatus {
        match self {
            Self::RateLimited => GrpcStatus::ResourceExhausted,
            Self::ModelNotConfigured => GrpcStatus::NotFound,
            Self::MalformedRequest
            | Self::ContradictingModelSpec
            | Self::IdentityNotFound
            | Self::RewriteImpossible => GrpcStatus::InvalidArgument,
            Self::AdminMethodRefused => GrpcStatus::PermissionDenied,
            Self::HoldTimeout => GrpcStatus::DeadlineExceeded,
            Self::NoTargetAvailable | Self::Overloaded => GrpcStatus::Unavailable,
        }
    }

    pub const fn http(self) -> u32 {
        match self {
            Self::RateLimited => 429,
            Self::ModelNotConfigured => 404,
            Self::MalformedRequest
            | Self::ContradictingModelSpec
            | Self::IdentityNotFound
            | Self::RewriteImpossible => 400,
            Self::AdminMethodRefused => 403,
            Self::HoldTimeout => 408,
            Self::NoTargetAvailable | Self::Overloaded => 503,
        }
    }
}

/// The language in which a caller reads a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    /// gRPC in a content-type that Envoy does not take for gRPC: gRPC-Web, or one with parameters.
    GrpcWeb,
    Rest,
}

/// An answer of the filter's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    pub reason: Reason,
    pub http: u32,
    /// For people: what was found, what was wanted. Holds nothing of the client's bytes unescaped.
    pub message: Cow<'static, str>,
    /// The limit that refused.
    pub limit: Option<Box<Exceeded>>,
}

/// A limit that a request exceeds, as its caller is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit's name in the configuration.
    pub name: Box<str>,
    /// What may pass at once.
    pub quota: u64,
    /// How long an empty limit takes to fill.
    pub window: Duration,
    pub remaining: u64,
    /// When the same request could pass; none when it never can.
    pub retry_after: Option<Duration>,
}

impl Exceeded {
    /// What tells programs when to come again.
    ///
    /// Sources: draft-ietf-httpapi-ratelimit-headers-10 for `ratelimit` and `ratelimit-policy`, RFC 9110 section
    /// 10.2.3 for `retry-after`, gRFC A6 for `grpc-retry-pushback-ms`, of which a negative number means never.
    fn headers(&self, protocol: Protocol) -> Vec<(&'static str, String)> {
        let name = self.name.replace('\\', "\\\\").replace('"', "\\\"");
        let (quota, window, left) = (self.quota, whole_seconds(self.window), self.remaining);
        let mut headers = vec![("ratelimit-policy", format!("\"{name}\";q={quota};w={window}"))];
        let reset = self.retry_after.map(whole_seconds);
        let until = reset.map(|seconds| format!(";t={seconds}")).unwrap_or_default();
        headers.push(("ratelimit", format!("\"{name}\";r={left}{until}")));
        headers.extend(reset.map(|seconds| ("retry-after", seconds.to_string())));
        if protocol != Protocol::Rest {
            let pushback =
                self.retry_after.map_or("-1".to_owned(), |wait| rounded_up(wait, 1_000_000).to_string());
            headers.push(("grpc-retry-pushback-ms", pushback));
        }
        headers
    }
}

/// A caller that comes too early is refused again, so the time is rounded up.
fn whole_seconds(duration: Duration) -> u128 {
    rounded_up(duration, 1_000_000_000)
}

fn rounded_up(duration: Duration, unit: u128) -> u128 {
    duration.as_nanos().div_ceil(unit)
}

/// A reply in the caller's language, for the host to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub http: u32,
    /// What Envoy answers instead of `http` to a request that it takes for gRPC.
    pub grpc: GrpcStatus,
    pub headers: Vec<(&'static str, String)>,
    /// Envoy makes it the `grpc-message` of a request that it takes for gRPC.
    pub body: String,
}

/// The domain of the `ErrorInfo` in every refusal.
pub const ERROR_DOMAIN: &str = "predictgate";
pub const REASON_HEADER: &str = "x-predictgate-reason";

impl LocalReply {
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, http: reason.http(), message: message.into(), limit: None }
    }

    pub fn answer(&self, protocol: Protocol) -> Answer {
        let mut headers = vec![(REASON_HEADER, self.reason.name().to_owned())];
        headers.extend(self.limit.iter().flat_map(|limit| limit.headers(protocol)));
        let mut answer = Answer {
            http: self.http,
            grpc: self.reason.grpc(),
            headers: Vec::new(),
            body: self.message.clone().into_owned(),
        };
        match protocol {
            Protocol::Grpc => headers.push(("grpc-status-details-bin", self.details())),
            Protocol::GrpcWeb => {
                headers.push(("grpc-status-details-bin", self.details()));
                headers.push(("grpc-status", (self.reason.grpc() as u8).to_string()));
                headers.push(("grpc-message", percent_encode(&self.message)));
                headers.push(("content-type", "application/grpc-web+proto".to_owned()));
                answer.http = 200;
                answer.body.clear();
            }
            Protocol::Rest => {
                headers.push(("content-type", "application/json".to_owned()));
                let text = serde_json::Value::String(answer.body).to_string();
                answer.body = ["{\"error\": ", &text, "}"].concat();
            }
        }
        answer.headers = headers;
        answer
    }

    /// `google.rpc.Status` for `grpc-status-details-bin`.
    fn details(&self) -> String {
        let info = ErrorInfo { reason: self.reason.name().to_owned(), domain: ERROR_DOMAIN.to_owned() };
        let mut details = vec![Any::pack("type.googleapis.com/google.rpc.ErrorInfo", &info)];
        if let Some(wait) = self.limit.as_ref().and_then(|limit| limit.retry_after) {
            let retry_delay = Some(ProtoDuration::of(wait));
            details.push(Any::pack("type.googleapis.com/google.rpc.RetryInfo", &RetryInfo { retry_delay }));
        }
        let status = RpcStatus {
            code: i32::from(self.reason.grpc() as u8),
            message: self.message.clone().into_owned(),
            details,
        };
        base64(&status.encode_to_vec())
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Eq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Eq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Eq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl ProtoDuration {
    fn of(duration: Duration) -> Self {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self { seconds, nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0) }
    }
}

impl Any {
    fn pack(type_url: &str, message: &impl Message) -> Self {
        Self { type_url: type_url.to_owned(), value: message.encode_to_vec() }
    }
}

/// Base64 without padding, which the gRPC wire format allows for `-bin` metadata (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for group in bytes.chunks(3) {
        let mut bits = 0_u32;
        for place in 0..3 {
            bits = (bits << 8) | u32::from(group.get(place).copied().unwrap_or(0));
        }
        for place in 0..=group.len() {
            let shift = 18_usize.saturating_sub(place.saturating_mul(6));
            let digit = ALPHABET.get((bits >> shift) as usize & 63);
            text.push(digit.map_or('=', |digit| char::from(*digit)));
        }
    }
    text
}

/// Escapes what came from a client for headers, logs and messages: only `[A-Za-z0-9._-]` stays, every other
/// byte becomes `%XX`, and the answer is cut at 64 bytes.
pub fn escape(text: &str) -> String {
    const MOST: usize = 64;
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            escaped.push(char::from(byte));
        } else {
            push_percent(&mut escaped, byte);
        }
        if escaped.len() >= MOST {
            escaped.truncate(MOST);
            break;
        }
    }
    escaped
}

/// The form of `grpc-message`: printable ASCII but `%` stays.
///
/// Source: the gRPC over HTTP/2 specification, "Status-Message".
fn percent_encode(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            push_percent(&mut encoded, byte);
        }
    }
    encoded
}

fn push_percent(text: &mut String, byte: u8) {
    text.push('%');
    for half in [byte >> 4, byte & 15] {
        text.extend(char::from_digit(u32::from(half), 16).map(|digit| digit.to_ascii_uppercase()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn base64_is_that_of_the_rfc_without_padding() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd, 0x00]), "//79AA");
    }

    #[test]
    fn what_a_client_wrote_is_escaped_and_cut() {
        assert_eq!(escape("res net\r\n"), "res%20net%0D%0A");
        assert_eq!(escape("é"), "%C3%A9");
        assert_eq!(escape(&"a".repeat(100)), "a".repeat(64));
    }

    #[test]
    fn a_refusal_speaks_both_languages() {
        let reply = LocalReply::new(Reason::ModelNotConfigured, "no model \"x\"");
        let rest = reply.answer(Protocol::Rest);
        assert_eq!((rest.grpc.name(), rest.http), ("NOT_FOUND", 404));
        assert_eq!(rest.body, r#"{"error": "no model \"x\""}"#);
        let status = RpcStatus::decode(&*reply_details(&reply)).unwrap();
        assert_eq!(status.code, 5);
        let info = ErrorInfo::decode(&*status.details[0].value).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("model_not_configured", "predictgate"));
    }

    fn limited(retry_after: Option<Duration>) -> LocalReply {
        let limit = Exceeded {
            name: "per \"tenant\"".into(),
            quota: 20,
            window: Duration::from_millis(1_500),
            remaining: 3,
            retry_after,
        };
        LocalReply { limit: Some(Box::new(limit)), ..LocalReply::new(Reason::RateLimited, "limited") }
    }

    #[track_caller]
    fn tells(reply: &LocalReply, protocol: Protocol, expected: &[(&str, &str)]) {
        let answer = reply.answer(protocol);
        let told: Vec<_> = answer.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let own = ["ratelimit", "ratelimit-policy", "retry-after", "grpc-retry-pushback-ms"];
        let told: Vec<_> = told.into_iter().filter(|(name, _)| own.contains(name)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_limit_says_when_to_come_again() {
        let reply = limited(Some(Duration::from_micros(1_200_300)));
        let common = [
            ("ratelimit-policy", "\"per \\\"tenant\\\"\";q=20;w=2"),
            ("ratelimit", "\"per \\\"tenant\\\"\";r=3;t=2"),
            ("retry-after", "2"),
        ];
        tells(&reply, Protocol::Rest, &common);
        tells(&reply, Protocol::Grpc, &[&common[..], &[("grpc-retry-pushback-ms", "1201")]].concat());
        let status = RpcStatus::decode(&*reply_details(&reply)).unwrap();
        assert_eq!(status.code, 8);
        let info = RetryInfo::decode(&*status.details[1].value).unwrap();
        assert_eq!(info.retry_delay, Some(ProtoDuration { seconds: 1, nanos: 200_300_000 }));
    }

    #[test]
    fn a_limit_that_can_never_be_kept_asks_for_no_retry() {
        let reply = limited(None);
        let common = [
            ("ratelimit-policy", "\"per \\\"tenant\\\"\";q=20;w=2"),
            ("ratelimit", "\"per \\\"tenant\\\"\";r=3"),
        ];
        tells(&reply, Protocol::Rest, &common);
        tells(&reply, Protocol::Grpc, &[&common[..], &[("grpc-retry-pushback-ms", "-1")]].concat());
        let status = RpcStatus::decode(&*reply_details(&reply)).unwrap();
        assert_eq!(status.details.len(), 1);
    }

    fn reply_details(reply: &LocalReply) -> Vec<u8> {
        let text = reply.details();
        let digit = |byte: u8| match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let mut bits = Vec::new();
        for byte in text.bytes() {
            bits.extend((0..6).rev().map(|place| digit(byte) >> place & 1));
        }
        bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit)).collect()
    }
}
