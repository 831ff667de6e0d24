//! One stream: the host's callbacks become questions, the verdicts become calls.

use std::cell::RefCell;
use std::rc::Rc;

use predictgate::exchange::{Body, DECISION_HEADER, Exchange, Sent, headers, sanitise};
use predictgate::outcome::{Code, Ending, Outcome};
use predictgate::policy::Policy;
use predictgate::verdict::{
    Answer, Forward, GrpcStatus, LocalReply, Protocol, REASON_HEADER, Reason, Verdict,
};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::host::{self, Map, Refused};
use crate::metrics::Metric;
use crate::root::Worker;

#[expect(clippy::struct_excessive_bools, reason = "they do not depend on each other")]
pub struct Http {
    id: u32,
    worker: Rc<Worker>,
    exchange: Rc<RefCell<Exchange>>,
    /// Nothing of the request is looked at any more.
    through: bool,
    /// The whole request has come.
    asked: bool,
    /// The response's headers were all of it.
    answered: bool,
    /// The stream's end was taken, which happens once.
    ended: bool,
}

impl Http {
    pub fn new(id: u32, worker: Rc<Worker>) -> Self {
        let exchange = Rc::new(RefCell::new(Exchange::new(id)));
        Self { id, worker, exchange, through: false, asked: false, answered: false, ended: false }
    }

    fn apply(&mut self, verdict: Verdict) -> Action {
        match verdict {
            Verdict::Hold => return Action::Pause,
            Verdict::Forward(forward) => {
                if change(self.worker.policy(), &forward).is_err() {
                    // As it is the request would go somewhere that nobody chose, or ask what nobody wants asked.
                    let message = "the host did not let the request be changed";
                    return self.reply(&LocalReply::new(Reason::NoTargetAvailable, message));
                }
            }
            Verdict::Reply(reply) => return self.reply(&reply),
        }
        self.through = self.exchange.try_borrow().is_ok_and(|exchange| exchange.is_through());
        Action::Continue
    }

    fn reply(&mut self, reply: &LocalReply) -> Action {
        self.through = true;
        let protocol = self.exchange.try_borrow().map_or(Protocol::Rest, |exchange| exchange.protocol());
        if host::reply(&reply.answer(protocol), reply.reason.name()).is_err() {
            log::warn!("the host did not send a reply of reason {}", reply.reason.name());
        }
        Action::Pause
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.worker.end(self.id, &self.exchange);
        let Ok(exchange) = self.exchange.try_borrow() else {
            return;
        };
        if log::log_enabled!(log::Level::Debug)
            && let Some(story) = exchange.story(self.worker.policy())
        {
            log::debug!("{story}");
        }
        self.worker.count(Metric::Identity(exchange.identity()));
        if let Some(reason) = exchange.refusal() {
            let model = exchange.decision().and_then(|decision| decision.model);
            self.worker.count(Metric::Rejected { model, reason });
            if let Some(sent) = exchange.sent() {
                self.worker.record(sent, Outcome::Neutral, host::now());
            }
        } else if let Some(sent) = exchange.sent() {
            let response = Response::read(exchange.protocol());
            let code = response.ending().code();
            let outcome = if sent.is_watched { self.judge(&response, code, sent) } else { Outcome::Success };
            self.worker.answered(sent, code, outcome);
        }
    }

    /// What became of a request that was watched.
    fn judge(&self, response: &Response, code: Code, sent: Sent) -> Outcome {
        // A gRPC status comes last, so a good one came with a whole answer, whatever became of the connection after it.
        // HTTP's comes first, and only the flags tell that what should have followed it was cut.
        if code.is_success() && (response.grpc || flags() == Some(0)) {
            return Outcome::Success;
        }
        // What Envoy answers in the server's stead is whole: to gRPC it has no body, to HTTP it is an error.
        let answered = if response.grpc { self.answered } else { !code.is_success() };
        response.judge(sent, self.asked && answered)
    }
}

/// Makes the changes that a request needs before it goes on.
fn change(policy: &Policy, forward: &Forward) -> Result<(), Refused> {
    headers(policy, forward).try_for_each(|(name, value)| host::set_header(Map::Request, name, value))?;
    if let Some(body) = &forward.body {
        // The length is another now, and gRPC needs none. Where the headers have gone on there is none to remove.
        _ = host::remove_header(Map::Request, "content-length");
        host::replace_request_body(body)?;
    }
    Ok(())
}

/// What the host shows of a response at the stream's end.
struct Response {
    grpc: bool,
    http_status: Option<u32>,
    grpc_status: Option<u64>,
    /// Where the status was.
    status_in: Map,
}

fn number(map: Map, name: &str) -> Option<u64> {
    let digits = host::header(map, name)?;
    if let [digit @ b'0'..=b'9'] = *digits {
        return Some(u64::from(digit.saturating_sub(b'0')));
    }
    str::from_utf8(&digits).ok()?.parse().ok()
}

/// Envoy's response flags.
fn flags() -> Option<u64> {
    Some(u64::from_le_bytes(host::property(&["response", "flags"])?.try_into().ok()?))
}

fn http_status() -> Option<u32> {
    u32::try_from(number(Map::Response, ":status")?).ok()
}

impl Response {
    fn read(protocol: Protocol) -> Self {
        let grpc = protocol != Protocol::Rest;
        if !grpc {
            return Self { grpc, http_status: http_status(), grpc_status: None, status_in: Map::Response };
        }
        let in_trailers = number(Map::ResponseTrailers, "grpc-status");
        let status_in = if in_trailers.is_some() { Map::ResponseTrailers } else { Map::Response };
        let grpc_status = in_trailers.or_else(|| number(Map::Response, "grpc-status"));
        Self { grpc, http_status: None, grpc_status, status_in }
    }

    fn ending(&self) -> Ending<'static> {
        let Self { grpc, http_status, grpc_status, .. } = *self;
        Ending { grpc, http_status, grpc_status, ..Ending::default() }
    }

    /// Whose fault an answer is that is no success. It takes some calls of the host.
    fn judge(&self, sent: Sent, is_whole: bool) -> Outcome {
        let details = host::property(&["response", "code_details"]).unwrap_or_default();
        let message = host::header(self.status_in, "grpc-message").unwrap_or_default();
        let http_status = self.http_status.or_else(http_status);
        Ending {
            http_status,
            is_whole,
            flags: flags().unwrap_or(0),
            details: &details,
            grpc_message: &message,
            chosen_by_configuration: sent.chosen_by_configuration,
            deadline: sent.deadline,
            ..self.ending()
        }
        .outcome()
    }
}

impl Context for Http {}

/// A stream whose end the host has not told, it does not keep either.
impl Drop for Http {
    fn drop(&mut self) {
        self.end();
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _: usize, ends: bool) -> Action {
        self.asked = ends;
        let (headers, spoofed) = sanitise(self.worker.policy(), host::request_headers());
        for name in &spoofed {
            if host::remove_header(Map::Request, name).is_err() {
                log::warn!("the host did not let a request header be removed");
            }
        }
        let verdict = self
            .worker
            .ask(self.id, &self.exchange, |exchange, world| exchange.request_headers(world, headers, ends));
        self.apply(verdict)
    }

    fn on_http_request_body(&mut self, size: usize, ends: bool) -> Action {
        self.asked |= ends;
        let skips = || self.exchange.try_borrow_mut().is_ok_and(|mut exchange| exchange.skips(size));
        if self.through || (!ends && skips()) {
            return Action::Continue;
        }
        let mut body = Body { length: size, read: &mut host::request_body };
        let verdict = self
            .worker
            .ask(self.id, &self.exchange, |exchange, world| exchange.request_body(world, &mut body, ends));
        self.apply(verdict)
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.asked = true;
        if self.through {
            return Action::Continue;
        }
        let verdict = self.worker.ask(self.id, &self.exchange, Exchange::request_trailers);
        self.apply(verdict)
    }

    fn on_http_response_headers(&mut self, _: usize, ends: bool) -> Action {
        self.answered = ends;
        let explanation =
            self.exchange.try_borrow().ok().and_then(|exchange| exchange.explanation(self.worker.policy()));
        if let Some(explanation) = explanation
            && host::set_header(Map::Response, DECISION_HEADER, &explanation).is_err()
        {
            log::warn!("the host did not let a response header be set");
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        self.end();
    }
}

/// The reason that the shipped configurations give, too, before a first configuration is accepted.
const NOT_CONFIGURED: &str = "not_configured";

/// Stands where a stream begins although no configuration was accepted, and lets nothing pass.
pub struct Unconfigured;

impl Context for Unconfigured {}

impl HttpContext for Unconfigured {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let answer = Answer {
            http: 503,
            grpc: GrpcStatus::Unavailable,
            headers: vec![(REASON_HEADER, NOT_CONFIGURED.to_owned())],
            body: "no configuration was accepted".to_owned(),
        };
        _ = host::reply(&answer, NOT_CONFIGURED);
        Action::Pause
    }
}
