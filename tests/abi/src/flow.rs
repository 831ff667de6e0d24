//! One direction of an HTTP stream through a filter, with the pausing and buffering of Envoy's filter manager.
//!
//! The filter may hold headers and body. What it holds waits in `held`; what it lets go arrives in `sent`.

use crate::map::Map;

/// What a callback may answer. The numbers are those of Envoy's filter statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Continue,
    /// Headers: wait, but show the body. Body: wait and buffer.
    Stop,
    /// Wait, show nothing more until resumed. Body: wait, buffered out of the filter's sight.
    StopAll,
    /// The filter has answered by itself or is dead; what comes is dropped.
    Ended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Flowing,
    /// Headers are held, body callbacks run.
    HeadersHeld,
    /// Nothing runs until the stream is resumed.
    AllHeld,
    /// Headers are gone, body is held.
    BodyHeld,
    Ended,
}

/// What has left the filter.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub headers: Option<Map>,
    pub body: Vec<u8>,
    pub trailers: Option<Map>,
    pub ended: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Flow {
    phase: Phase,
    pub headers: Option<Map>,
    pub trailers: Option<Map>,
    /// Whether the end of the stream has come from the peer.
    peer_ended: bool,
    held: Vec<u8>,
    /// Whether the filter sees `held` in front of the next chunk.
    cumulative: bool,
    /// The body as the running callback sees it.
    visible: Option<Vec<u8>>,
    /// Whether trailers may be changed.
    trailers_open: bool,
    pub sent: Sent,
}

/// A callback that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Body { size: usize, end: bool },
    Trailers,
}

impl Flow {
    pub fn started(&self) -> bool {
        self.headers.is_some()
    }

    pub fn paused(&self) -> bool {
        !matches!(self.phase, Phase::Flowing | Phase::Ended)
    }

    pub fn ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Headers, as long as they can still be changed.
    pub fn open_headers(&mut self) -> Option<&mut Map> {
        let gone = self.sent.headers.is_some() || self.phase == Phase::Ended;
        self.headers.as_mut().filter(|_| !gone)
    }

    pub fn open_trailers(&mut self) -> Option<&mut Map> {
        self.trailers.as_mut().filter(|_| self.trailers_open)
    }

    /// The body that the filter may read and write now.
    pub fn buffer(&mut self) -> Option<&mut Vec<u8>> {
        match &mut self.visible {
            Some(visible) => Some(visible),
            None if self.cumulative => Some(&mut self.held),
            None => None,
        }
    }

    pub fn begin(&mut self, headers: Map, end: bool) {
        assert!(!self.started(), "headers come once");
        self.headers = Some(headers);
        self.peer_ended = end;
    }

    pub fn after_headers(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Continue => self.release(),
            Verdict::Stop => self.phase = Phase::HeadersHeld,
            Verdict::StopAll => self.phase = Phase::AllHeld,
            Verdict::Ended => self.end(),
        }
    }

    /// Takes a chunk from the peer; the callback is due unless everything is held.
    pub fn chunk(&mut self, chunk: &[u8], end: bool) -> Option<Due> {
        assert!(self.started() && !self.peer_ended, "a body comes after headers and before the end");
        self.peer_ended = end;
        match self.phase {
            Phase::Ended => None,
            Phase::AllHeld => {
                self.held.extend_from_slice(chunk);
                None
            }
            _ => Some(self.show(chunk, end)),
        }
    }

    fn show(&mut self, chunk: &[u8], end: bool) -> Due {
        let mut visible = if self.cumulative { std::mem::take(&mut self.held) } else { Vec::new() };
        visible.extend_from_slice(chunk);
        let size = visible.len();
        self.visible = Some(visible);
        Due::Body { size, end }
    }

    pub fn after_body(&mut self, verdict: Verdict) {
        let visible = self.visible.take().unwrap_or_default();
        match verdict {
            Verdict::Ended => return self.end(),
            Verdict::Continue | Verdict::Stop | Verdict::StopAll => self.held.extend(visible),
        }
        self.cumulative = verdict == Verdict::Stop;
        if verdict == Verdict::Continue {
            self.release();
        } else if self.phase == Phase::Flowing {
            self.phase = Phase::BodyHeld;
        }
    }

    /// Takes trailers from the peer; the callback is due unless everything is held.
    pub fn end_with(&mut self, trailers: Map) -> Option<Due> {
        assert!(self.started() && !self.peer_ended, "trailers come after headers and end the stream");
        self.trailers = Some(trailers);
        self.peer_ended = true;
        if matches!(self.phase, Phase::AllHeld | Phase::Ended) {
            return None;
        }
        self.trailers_open = true;
        Some(Due::Trailers)
    }

    pub fn after_trailers(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Continue => {
                self.trailers_open = false;
                self.release();
            }
            Verdict::Stop | Verdict::StopAll => {
                if self.phase == Phase::Flowing {
                    self.phase = Phase::BodyHeld;
                }
            }
            Verdict::Ended => self.end(),
        }
    }

    /// Lets go what is held, and says which callbacks that makes due.
    ///
    /// Body that came while everything was held has not been seen by the filter: its callback comes now,
    /// with all of it at once and after the headers have gone on.
    pub fn resume(&mut self) -> Vec<Due> {
        if self.phase != Phase::AllHeld {
            if self.paused() {
                self.cumulative = false;
                self.trailers_open = false;
                self.release();
            }
            return Vec::new();
        }
        self.phase = Phase::Flowing;
        self.sent.headers = self.headers.clone();
        let mut due = Vec::new();
        let waiting = std::mem::take(&mut self.held);
        let ends_with_body = self.peer_ended && self.trailers.is_none();
        if waiting.is_empty() && self.trailers.is_none() {
            self.sent.ended = self.peer_ended;
        } else if !waiting.is_empty() {
            due.push(self.show(&waiting, ends_with_body));
        }
        if self.trailers.is_some() {
            self.trailers_open = true;
            due.push(Due::Trailers);
        }
        due
    }

    fn release(&mut self) {
        self.phase = Phase::Flowing;
        if self.sent.headers.is_none() {
            self.sent.headers = self.headers.clone();
        }
        self.sent.body.append(&mut self.held);
        if self.trailers.is_some() && !self.trailers_open {
            self.sent.trailers = self.trailers.clone();
        }
        let complete = self.trailers.is_none() || self.sent.trailers.is_some();
        self.sent.ended = self.peer_ended && complete;
    }

    /// The stream is answered or gone; nothing more flows this way.
    pub fn end(&mut self) {
        self.phase = Phase::Ended;
        self.held.clear();
        self.visible = None;
        self.cumulative = false;
        self.trailers_open = false;
    }
}
