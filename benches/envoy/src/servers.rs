//! The model servers of both clusters, which answer whatever they are asked as soon as it is complete.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use mio::net::TcpListener;
use mio::{Interest, Poll, Token};

use crate::wire::{self, Link, Said};

/// What a server answers: a gRPC message of one KiB with its frame.
pub const ANSWER: usize = 1024;
/// Listeners have the first tokens, then come servers and callers in turn.
pub const LISTENERS: usize = 2;
/// `:status: 200` of HPACK's static table, then two entries for the dynamic one.
const FIRST_HEAD: &[u8] = b"\x88\x40\x0ccontent-type\x10application/grpc";
const FIRST_TRAILERS: &[u8] = b"\x40\x0bgrpc-status\x010";
/// Once `grpc-status` is in the table, `content-type` is the older entry.
const NEXT_HEAD: &[u8] = b"\x88\xbf";
const NEXT_TRAILERS: &[u8] = b"\xbe";

/// The model servers of both clusters.
pub struct Servers {
    listeners: [TcpListener; LISTENERS],
    links: Vec<Option<Server>>,
    answered: [u64; LISTENERS],
}

struct Server {
    link: Link,
    cluster: usize,
    waiting: VecDeque<u32>,
    answered: u64,
}

impl Servers {
    /// # Errors
    ///
    /// When no port is free.
    pub fn start(poll: &Poll) -> Result<Self> {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into()).context("no free port");
        let mut servers =
            Self { listeners: [listen()?, listen()?], links: Vec::new(), answered: [0; LISTENERS] };
        for (number, listener) in servers.listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(number), Interest::READABLE)?;
        }
        Ok(servers)
    }

    /// # Errors
    ///
    /// When the system does not tell.
    pub fn addresses(&self) -> Result<[SocketAddr; LISTENERS]> {
        let [one, two] = &self.listeners;
        Ok([one.local_addr()?, two.local_addr()?])
    }

    /// The requests that each cluster has answered.
    pub fn answered(&self) -> [u64; LISTENERS] {
        self.answered
    }

    /// # Errors
    ///
    /// When a connection cannot be taken.
    pub fn accept(&mut self, cluster: usize, poll: &Poll) -> Result<()> {
        loop {
            let mut stream = match self.listeners[cluster].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let place = self.links.iter().position(Option::is_none).unwrap_or(self.links.len());
            let token = Token(LISTENERS + 2 * place);
            poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            let mut link = Link::server(stream);
            link.flush()?;
            let server = Some(Server { link, cluster, waiting: VecDeque::new(), answered: 0 });
            if place == self.links.len() {
                self.links.push(server);
            } else {
                self.links[place] = server;
            }
        }
    }

    /// Envoy may close its connections at any time; then there is nobody to tell.
    pub fn serve(&mut self, place: usize, buffer: &mut [u8]) {
        let Some(server) = self.links.get_mut(place).and_then(Option::as_mut) else { return };
        let before = server.answered;
        let goes_on = server.serve(buffer).unwrap_or(false);
        self.answered[server.cluster] += server.answered - before;
        if !goes_on {
            self.links[place] = None;
        }
    }
}

impl Server {
    fn serve(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let waiting = &mut self.waiting;
        let open = self.link.read(buffer, |_, said| {
            match said {
                Said::Headers { stream, ends: true } | Said::Data { stream, ends: true, .. } => {
                    waiting.push_back(stream);
                }
                Said::Reset { stream } => waiting.retain(|it| *it != stream),
                _ => {}
            }
            Ok(())
        })?;
        let sender = &mut self.link.sender;
        while ANSWER as i64 <= sender.window
            && let Some(stream) = self.waiting.pop_front()
        {
            let (head, trailers) = match self.answered {
                0 => (FIRST_HEAD, FIRST_TRAILERS),
                _ => (NEXT_HEAD, NEXT_TRAILERS),
            };
            wire::frame(wire::HEADERS, wire::END_HEADERS, stream, head, &mut sender.out);
            wire::head(wire::DATA, 0, stream, ANSWER, &mut sender.out);
            sender.out.push(0);
            sender.out.extend((ANSWER as u32 - 5).to_be_bytes());
            sender.out.resize(sender.out.len() + ANSWER - 5, 7);
            let ends = wire::END_HEADERS | wire::END_STREAM;
            wire::frame(wire::HEADERS, ends, stream, trailers, &mut sender.out);
            sender.window -= ANSWER as i64;
            self.answered += 1;
        }
        self.link.flush()?;
        Ok(open)
    }
}
