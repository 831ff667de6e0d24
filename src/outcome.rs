//! What became of a request, and whose fault it was.

use std::time::Duration;

use crate::verdict::GrpcStatus;

/// How a stream ended, as the host shows it at the end.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts that do not depend on each other")]
pub struct Ending<'a> {
    /// The filter itself answered.
    pub replied: bool,
    pub grpc: bool,
    /// `:status` of the response; none when no response came.
    pub http_status: Option<u32>,
    /// `grpc-status` from the trailers, or from the headers of a trailers-only response.
    pub grpc_status: Option<u64>,
    /// `grpc-message`, from where the status is.
    pub grpc_message: &'a [u8],
    /// Envoy's `response.flags`.
    pub flags: u64,
    /// Envoy's `response.code_details`.
    pub details: &'a [u8],
    /// The version or the label that the server was asked for came from the configuration, not from the caller.
    pub chosen_by_configuration: bool,
    /// The body was found malformed.
    pub malformed: bool,
    /// The caller's own `grpc-timeout`.
    pub deadline: Option<Duration>,
    /// The whole request and the whole response were seen. A response that the proxy itself makes because time is up
    /// is whole when it is made before any of the server's.
    pub is_whole: bool,
}

/// A label for metrics, from a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    Grpc(GrpcStatus),
    /// A status between 100 and 599.
    Http(u16),
    /// No response, or one without a status.
    None,
}

impl Code {
    /// Whether the caller got what it asked for.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Grpc(GrpcStatus::Ok) | Self::Http(100..400))
    }
}

/// Who, or what, a response speaks for or against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The target failed.
    Failure,
    /// The target does not serve the version or label that the configuration asks it for.
    NotServed,
    /// The target has more to do than it can.
    Overload,
    /// It says nothing about the target: the caller's fault, the caller's leaving, the proxy's own answer.
    Neutral,
}

impl Outcome {
    /// As logs have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::NotServed => "not_served",
            Self::Overload => "overload",
            Self::Neutral => "neutral",
        }
    }
}

/// Envoy's response flags, as bits (`CoreResponseFlag` in `envoy/stream_info/stream_info.h`).
mod flag {
    pub const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;
    pub const UPSTREAM_REQUEST_TIMEOUT: u64 = 1 << 2;
    pub const UPSTREAM_REMOTE_RESET: u64 = 1 << 4;
    pub const UPSTREAM_CONNECTION_FAILURE: u64 = 1 << 5;
    pub const UPSTREAM_CONNECTION_TERMINATION: u64 = 1 << 6;
    pub const DOWNSTREAM_CONNECTION_TERMINATION: u64 = 1 << 14;
    pub const UPSTREAM_MAX_STREAM_DURATION: u64 = 1 << 19;
    pub const UPSTREAM_PROTOCOL_ERROR: u64 = 1 << 23;
    pub const DNS_RESOLUTION_FAILED: u64 = 1 << 26;
    pub const DOWNSTREAM_REMOTE_RESET: u64 = 1 << 28;

    pub const DOWNSTREAM: u64 = DOWNSTREAM_CONNECTION_TERMINATION | DOWNSTREAM_REMOTE_RESET;
    pub const TIMEOUT: u64 = UPSTREAM_REQUEST_TIMEOUT | UPSTREAM_MAX_STREAM_DURATION;
    pub const UPSTREAM: u64 = NO_HEALTHY_UPSTREAM
        | UPSTREAM_REMOTE_RESET
        | UPSTREAM_CONNECTION_FAILURE
        | UPSTREAM_CONNECTION_TERMINATION
        | UPSTREAM_PROTOCOL_ERROR
        | DNS_RESOLUTION_FAILED;
}

/// A timeout speaks against the target only when the caller gave it so much time.
const FAIR_DEADLINE: Duration = Duration::from_secs(1);

/// What Envoy says when the stream as a whole took too long, or nothing moved on it
/// (`source/common/http/conn_manager_impl.cc`). A caller that is slow to send or to read can bring that about, too.
const STREAM_TIMEOUTS: [&[u8]; 2] = [b"max_duration_timeout", b"stream_idle_timeout"];

/// What TensorFlow Serving says of a full batching queue (shared_batch_scheduler.h).
const QUEUE_FULL: &[u8] = b"The batch scheduling queue to which this task was submitted is full";
/// What gRPC itself says of a message above the server's limit.
const MESSAGE_TOO_LARGE: &[u8] = b"Received message larger than max";
/// What TensorFlow Serving says of a version that is not loaded (basic_manager.cc).
const SERVABLE_NOT_FOUND: &[u8] = b"Servable not found";
/// What TensorFlow Serving says of a label that is not configured (server_core.cc).
const LABEL_NOT_FOUND: &[u8] = b"Unrecognized servable version label";

impl Ending<'_> {
    /// The caller's status, however it came.
    pub fn code(&self) -> Code {
        if self.grpc {
            self.grpc_status.and_then(GrpcStatus::from_number).map_or(Code::None, Code::Grpc)
        } else {
            let status = self.http_status.and_then(|status| u16::try_from(status).ok());
            status.filter(|status| (100..600).contains(status)).map_or(Code::None, Code::Http)
        }
    }

    pub fn outcome(&self) -> Outcome {
        if self.replied || self.flags & flag::DOWNSTREAM != 0 {
            return Outcome::Neutral;
        }
        if self.flags & flag::TIMEOUT != 0 {
            return self.timeout();
        }
        if self.flags & flag::UPSTREAM != 0 {
            return Outcome::Failure;
        }
        if self.is_whole && STREAM_TIMEOUTS.contains(&self.details) {
            return self.timeout();
        }
        if self.details != b"via_upstream" {
            return Outcome::Neutral;
        }
        if self.grpc { self.grpc_outcome() } else { self.http_outcome() }
    }

    fn timeout(&self) -> Outcome {
        if self.deadline.is_none_or(|deadline| deadline >= FAIR_DEADLINE) {
            Outcome::Failure
        } else {
            Outcome::Neutral
        }
    }

    fn grpc_outcome(&self) -> Outcome {
        let says = |text: &[u8]| percent_decoded_starts_with(self.grpc_message, text);
        match self.grpc_status.and_then(GrpcStatus::from_number) {
            Some(GrpcStatus::Ok) => Outcome::Success,
            Some(GrpcStatus::Unavailable) if says(QUEUE_FULL) => Outcome::Overload,
            Some(GrpcStatus::Internal) if self.malformed => Outcome::Neutral,
            Some(
                GrpcStatus::Unavailable | GrpcStatus::Internal | GrpcStatus::Unknown | GrpcStatus::DataLoss,
            ) => Outcome::Failure,
            None if self.grpc_status.is_some() => Outcome::Failure,
            None => self.without_grpc_status(),
            Some(GrpcStatus::DeadlineExceeded) => self.timeout(),
            Some(GrpcStatus::ResourceExhausted) if says(MESSAGE_TOO_LARGE) => Outcome::Neutral,
            Some(GrpcStatus::ResourceExhausted) => Outcome::Overload,
            Some(GrpcStatus::NotFound) if self.chosen_by_configuration && says(SERVABLE_NOT_FOUND) => {
                Outcome::NotServed
            }
            Some(GrpcStatus::InvalidArgument) if self.chosen_by_configuration && says(LABEL_NOT_FOUND) => {
                Outcome::NotServed
            }
            Some(_) => Outcome::Neutral,
        }
    }

    /// What answers is no gRPC server, or one that did not get to the end. Where the HTTP status lays it on the caller,
    /// as a proxy in front of the server may, gRPC's own reading of it counts
    /// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
    const fn without_grpc_status(&self) -> Outcome {
        match self.http_status {
            Some(401 | 403 | 404) => Outcome::Neutral,
            Some(429) => Outcome::Overload,
            _ => Outcome::Failure,
        }
    }

    /// REST errors by the codes that TensorFlow Serving makes of its statuses; the text of a body is not read.
    fn http_outcome(&self) -> Outcome {
        match self.http_status {
            Some(200..400) => Outcome::Success,
            Some(500 | 502 | 503) | None => Outcome::Failure,
            Some(504) => self.timeout(),
            Some(429) => Outcome::Overload,
            Some(_) => Outcome::Neutral,
        }
    }
}

/// gRPC percent-encodes `grpc-message`; none of the texts looked for holds a `%`.
fn percent_decoded_starts_with(message: &[u8], text: &[u8]) -> bool {
    let mut rest = message;
    text.iter().all(|wanted| {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let byte = digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4) | low);
                (byte.and_then(|byte| u8::try_from(byte).ok()), after)
            }
            [byte, after @ ..] => (Some(*byte), after),
            [] => (None, rest),
        };
        rest = after;
        byte == Some(*wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn answer(status: GrpcStatus, message: &str) -> Ending<'_> {
        Ending {
            grpc: true,
            http_status: Some(200),
            grpc_status: Some(status as u64),
            grpc_message: message.as_bytes(),
            details: b"via_upstream",
            ..Ending::default()
        }
    }

    #[track_caller]
    fn check(ending: Ending<'_>, expected: Outcome) {
        assert_eq!(ending.outcome(), expected, "{ending:?}");
    }

    #[test]
    fn a_status_of_the_server_speaks_for_or_against_it() {
        check(answer(GrpcStatus::Ok, ""), Outcome::Success);
        for status in
            [GrpcStatus::Unavailable, GrpcStatus::Internal, GrpcStatus::Unknown, GrpcStatus::DataLoss]
        {
            check(answer(status, "boom"), Outcome::Failure);
        }
        for status in [GrpcStatus::InvalidArgument, GrpcStatus::FailedPrecondition, GrpcStatus::Unimplemented]
        {
            check(answer(status, "Serving signature key \"x\" not found."), Outcome::Neutral);
        }
        check(Ending { grpc_status: None, ..answer(GrpcStatus::Ok, "") }, Outcome::Failure);
        check(Ending { malformed: true, ..answer(GrpcStatus::Internal, "") }, Outcome::Neutral);
    }

    #[test]
    fn overload_is_told_from_failure() {
        check(answer(GrpcStatus::ResourceExhausted, "Run() timeout exceeded"), Outcome::Overload);
        check(
            answer(GrpcStatus::ResourceExhausted, "Received message larger than max (5 vs. 4)"),
            Outcome::Neutral,
        );
        let full = "The batch scheduling queue to which this task was submitted is full; task size is 1";
        check(answer(GrpcStatus::Unavailable, full), Outcome::Overload);
    }

    #[test]
    fn a_version_that_is_not_served_counts_only_where_the_configuration_chose_it() {
        for (status, message) in [
            (GrpcStatus::NotFound, "Servable not found for request: Specific(resnet, 2)"),
            (GrpcStatus::NotFound, "Servable%20not found for request: Latest(r%C3%A9snet)"),
            (GrpcStatus::InvalidArgument, "Unrecognized servable version label: canary"),
        ] {
            check(answer(status, message), Outcome::Neutral);
            check(Ending { chosen_by_configuration: true, ..answer(status, message) }, Outcome::NotServed);
        }
        check(
            Ending { chosen_by_configuration: true, ..answer(GrpcStatus::NotFound, "row") },
            Outcome::Neutral,
        );
    }

    #[test]
    fn a_timeout_counts_only_when_there_was_time() {
        let timeout = answer(GrpcStatus::DeadlineExceeded, "");
        check(timeout, Outcome::Failure);
        check(Ending { deadline: Some(Duration::from_millis(999)), ..timeout }, Outcome::Neutral);
        check(Ending { deadline: Some(Duration::from_secs(1)), ..timeout }, Outcome::Failure);
        let route = Ending { flags: 4, details: b"response_timeout", ..answer(GrpcStatus::Unavailable, "") };
        check(route, Outcome::Failure);
        check(Ending { deadline: Some(Duration::from_millis(1)), ..route }, Outcome::Neutral);
        for details in STREAM_TIMEOUTS {
            let stream = Ending { details, is_whole: true, ..timeout };
            check(stream, Outcome::Failure);
            check(Ending { deadline: Some(Duration::from_millis(999)), ..stream }, Outcome::Neutral);
            check(Ending { is_whole: false, ..stream }, Outcome::Neutral);
        }
    }

    /// Every way in which a stream is seen to end in Envoy 1.40, as the filter sees it at the end.
    #[test]
    fn every_ending_in_envoy_has_its_class() {
        use GrpcStatus::{DeadlineExceeded, Internal, Unavailable, Unknown};
        let (local, cut) = (
            |it| Ending { details: b"local", ..answer(it, "") },
            Ending {
                // What Envoy makes up for a response that was cut is no status of the server.
                grpc_status: None,
                ..answer(GrpcStatus::Ok, "")
            },
        );
        let short = Some(Duration::from_millis(999));
        let flags = |flags, ending| Ending { flags, ..ending };
        let timeout = Ending { flags: 4, details: b"response_timeout", ..answer(Unavailable, "") };
        let gone = Ending { grpc: true, ..Ending::default() };
        for (name, ending, expected) in [
            ("ok", answer(GrpcStatus::Ok, ""), Outcome::Success),
            ("trailers-only", answer(Internal, ""), Outcome::Failure),
            ("status in trailers", answer(Unknown, ""), Outcome::Failure),
            ("trailers-only while the request streams", answer(Unavailable, "busy"), Outcome::Failure),
            ("connection refused", flags(1 << 5, local(Unavailable)), Outcome::Failure),
            ("no healthy upstream", flags(1 << 1, local(Unavailable)), Outcome::Failure),
            ("upstream name not resolved", flags(1 << 26, local(Unavailable)), Outcome::Failure),
            ("upstream speaks no HTTP/2", flags(1 << 23, local(Unavailable)), Outcome::Failure),
            ("reset before headers", flags(1 << 4, local(Unavailable)), Outcome::Failure),
            ("closed before headers", flags(1 << 6, local(Unavailable)), Outcome::Failure),
            ("reset mid-stream", flags(1 << 4, cut), Outcome::Failure),
            ("closed mid-stream", flags(1 << 6, cut), Outcome::Failure),
            ("ended without a status", cut, Outcome::Failure),
            ("retries spent on resets", flags(1 << 15 | 1 << 4, local(Unavailable)), Outcome::Failure),
            ("retries spent on answers", flags(1 << 15, answer(Unavailable, "")), Outcome::Failure),
            ("route timeout before headers", timeout, Outcome::Failure),
            ("route timeout after headers", Ending { flags: 4, ..cut }, Outcome::Failure),
            ("the same of a short deadline", Ending { deadline: short, ..timeout }, Outcome::Neutral),
            (
                "max_stream_duration of the upstream",
                flags(1 << 19, local(DeadlineExceeded)),
                Outcome::Failure,
            ),
            ("max_stream_duration of the route", local(DeadlineExceeded), Outcome::Neutral),
            ("stream idle timeout", flags(1 << 16, local(Unavailable)), Outcome::Neutral),
            ("caller resets", flags(1 << 28, gone), Outcome::Neutral),
            ("caller resets mid-stream", flags(1 << 28, cut), Outcome::Neutral),
            ("caller closes", flags(1 << 14, gone), Outcome::Neutral),
            ("no route, no cluster", flags(1 << 24, local(Unavailable)), Outcome::Neutral),
            ("circuit breaker", flags(1 << 7, local(Unavailable)), Outcome::Neutral),
            ("payload too large", local(Unknown), Outcome::Neutral),
            ("own reply", Ending { replied: true, ..gone }, Outcome::Neutral),
            (
                "own reply while the upstream resets",
                flags(1 << 4, Ending { replied: true, ..gone }),
                Outcome::Neutral,
            ),
            ("another filter's reply", Ending { details: b"", ..answer(Unavailable, "") }, Outcome::Neutral),
            ("503 that is no gRPC", Ending { http_status: Some(503), ..cut }, Outcome::Failure),
            ("400 that is no gRPC", Ending { http_status: Some(400), ..cut }, Outcome::Failure),
            ("403 that is no gRPC", Ending { http_status: Some(403), ..cut }, Outcome::Neutral),
            ("429 that is no gRPC", Ending { http_status: Some(429), ..cut }, Outcome::Overload),
            ("a status that gRPC does not know", Ending { grpc_status: Some(99), ..cut }, Outcome::Failure),
        ] {
            assert_eq!(ending.outcome(), expected, "{name}");
        }
    }

    #[test]
    fn rest_answers_are_judged_by_their_code() {
        let rest =
            |status| Ending { http_status: Some(status), details: b"via_upstream", ..Ending::default() };
        check(rest(200), Outcome::Success);
        check(rest(500), Outcome::Failure);
        check(rest(503), Outcome::Failure);
        check(rest(404), Outcome::Neutral);
        check(rest(429), Outcome::Overload);
        check(rest(504), Outcome::Failure);
        check(Ending { deadline: Some(Duration::from_millis(999)), ..rest(504) }, Outcome::Neutral);
        check(Ending { flags: 1 << 4, ..rest(200) }, Outcome::Failure);
        check(Ending { flags: 1 << 14, ..rest(200) }, Outcome::Neutral);
        assert_eq!(rest(404).code(), Code::Http(404));
        assert_eq!(rest(999).code(), Code::None);
    }
}
