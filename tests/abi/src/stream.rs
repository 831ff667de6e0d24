//! One HTTP request and its response, played by a test as the client and the upstream.

use std::rc::Rc;

pub use crate::context::Reply;
use crate::context::Stage;
use crate::flow::Verdict;
use crate::map::Map;
use crate::vm::Direction;
use crate::worker::{SharedVm, context, context_mut};

/// What the filter answered to a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Continue,
    Pause,
    /// The stream is over for the filter: it answered by itself, or its VM is dead.
    Ended,
    /// The callback did not run, because everything is held until the filter resumes the stream.
    NotCalled,
}

/// Where a stream stands.
#[derive(Clone, Debug)]
pub struct State {
    /// The request as the upstream would get it so far; no headers while they are held.
    pub headers: Option<Map>,
    pub body: Vec<u8>,
    pub trailers: Option<Map>,
    /// Whether the upstream has the whole request.
    pub complete: bool,
    /// Whether the request is held by the filter, and how many bytes of its body.
    pub paused: bool,
    pub held: usize,
    /// The answer of the filter itself.
    pub reply: Option<Reply>,
    /// The response as the client gets it.
    pub response_headers: Option<Map>,
    pub response_body: Vec<u8>,
    pub response_trailers: Option<Map>,
    /// The stream was reset rather than answered.
    pub reset: bool,
}

impl State {
    /// A request header as the upstream gets it.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.as_ref()?.text(name)
    }

    /// A response header as the client gets it.
    pub fn response_header(&self, name: &str) -> Option<String> {
        self.response_headers.as_ref()?.text(name)
    }
}

pub struct Stream {
    vm: SharedVm,
    id: u32,
}

const CLIENT_RESET: i64 = 268_435_456;

impl Stream {
    pub(crate) fn new(vm: SharedVm, id: u32) -> Self {
        Self { vm, id }
    }

    pub fn request_headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(&self, headers: &[(N, V)], end: bool) -> Action {
        let root = context(&self.vm, self.id).root;
        let mut vm = self.vm.borrow_mut();
        vm.call(self.id, "proxy_on_context_create", &[self.id, root]);
        action(Some(vm.headers(self.id, Direction::Request, Map::new(headers), end)))
    }

    pub fn request_body(&self, chunk: &[u8], end: bool) -> Action {
        self.unless_ended(|vm| vm.borrow_mut().body(self.id, Direction::Request, chunk, end))
    }

    pub fn request_trailers<N: AsRef<[u8]>, V: AsRef<[u8]>>(&self, trailers: &[(N, V)]) -> Action {
        let trailers = Map::new(trailers);
        self.unless_ended(|vm| vm.borrow_mut().trailers(self.id, Direction::Request, trailers))
    }

    /// The client may go on sending to a stream that has been answered; Envoy drops that.
    fn unless_ended(
        &self,
        run: impl FnOnce(&Rc<std::cell::RefCell<crate::vm::Vm>>) -> Option<Verdict>,
    ) -> Action {
        if context(&self.vm, self.id).request.ended() { Action::Ended } else { action(run(&self.vm)) }
    }

    pub fn response_headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(&self, headers: &[(N, V)], end: bool) -> Action {
        assert!(context(&self.vm, self.id).request.sent.headers.is_some(), "no upstream has this request");
        action(Some(self.vm.borrow_mut().headers(self.id, Direction::Response, Map::new(headers), end)))
    }

    pub fn response_body(&self, chunk: &[u8], end: bool) -> Action {
        action(self.vm.borrow_mut().body(self.id, Direction::Response, chunk, end))
    }

    pub fn response_trailers<N: AsRef<[u8]>, V: AsRef<[u8]>>(&self, trailers: &[(N, V)]) -> Action {
        action(self.vm.borrow_mut().trailers(self.id, Direction::Response, Map::new(trailers)))
    }

    /// Answers as a gRPC server does: headers, a message, and the status in trailers.
    pub fn grpc_response(&self, status: u32) {
        self.response_headers(&[(":status", "200"), ("content-type", "application/grpc")], false);
        self.response_body(&[0, 0, 0, 0, 0], false);
        self.response_trailers(&[("grpc-status", status.to_string())]);
    }

    /// Ends the stream: `on_log`, `on_done`, `on_delete`.
    pub fn log(&self) {
        let now = self.vm.borrow().state().process.borrow().monotonic;
        {
            let mut stream = context_mut(&self.vm, self.id);
            assert!(stream.alive, "a stream ends once");
            stream.stage = Stage::Log;
            let duration = now - stream.began;
            stream.set_property(&["request", "duration"], &duration.to_le_bytes());
        }
        let mut vm = self.vm.borrow_mut();
        for callback in ["proxy_on_log", "proxy_on_done", "proxy_on_delete"] {
            vm.call(self.id, callback, &[self.id]);
        }
        drop(vm);
        let mut stream = context_mut(&self.vm, self.id);
        stream.alive = false;
        stream.request.end();
        stream.response.end();
    }

    /// The client leaves.
    pub fn cancel(&self) {
        self.property(&["response", "flags"], &CLIENT_RESET.to_le_bytes());
        self.cut();
    }

    pub(crate) fn cut(&self) {
        {
            let mut stream = context_mut(&self.vm, self.id);
            stream.reset = true;
            stream.request.end();
            stream.response.end();
        }
        self.log();
    }

    /// Sets what the module reads as a property of this stream.
    pub fn property(&self, path: &[&str], value: &[u8]) {
        context_mut(&self.vm, self.id).set_property(path, value);
    }

    pub fn state(&self) -> State {
        let stream = context(&self.vm, self.id);
        let (request, response) = (&stream.request, &stream.response);
        State {
            headers: request.sent.headers.clone(),
            body: request.sent.body.clone(),
            trailers: request.sent.trailers.clone(),
            complete: request.sent.ended,
            paused: request.paused(),
            held: request.held(),
            reply: stream.reply.clone(),
            response_headers: response.sent.headers.clone(),
            response_body: response.sent.body.clone(),
            response_trailers: response.sent.trailers.clone(),
            reset: stream.reset,
        }
    }
}

fn action(verdict: Option<Verdict>) -> Action {
    match verdict {
        Some(Verdict::Continue) => Action::Continue,
        Some(Verdict::Stop | Verdict::StopAll) => Action::Pause,
        Some(Verdict::Ended) => Action::Ended,
        None => Action::NotCalled,
    }
}
