//! Callers and model servers in one thread, on one core, so that Envoy has the other to itself.
//!
//! A request costs this thread a few microseconds. How busy it was is measured with everything else, since a load
//! that is slower than Envoy measures itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::machine::{Cpu, Rng};
use crate::request::Request;
use crate::servers::{ANSWER, LISTENERS, Servers};
use crate::wire::{Link, MOST_IN_FRAME, Said};

/// Nothing takes so long unless something is broken.
const DEADLINE: Duration = Duration::from_secs(60);
/// What is put into a connection's buffer at a time.
const MOST_PENDING: usize = 256 * 1024;
struct Caller {
    link: Link,
    next: u32,
    calls: Vec<Call>,
}

/// A request that is not answered yet.
struct Call {
    stream: u32,
    window: i64,
    sent: usize,
    drawn: u32,
    /// Bytes of the answer.
    came: usize,
    due: Instant,
}

/// A request that ended.
struct Ended {
    caller: usize,
    due: Instant,
    /// The whole message came, and trailers after it.
    whole: bool,
}

pub struct Load {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    servers: Servers,
    rng: Rng,
}

/// How requests come: so many at once on each of so many connections.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub connections: usize,
    pub streams: usize,
}

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    pub requests: usize,
    pub whole: usize,
    pub took: Duration,
    /// CPU time of this thread: callers and servers.
    pub load: Duration,
    /// Requests by cluster.
    pub clusters: [u64; 2],
    /// From when it was due to the end of its answer, sorted.
    pub latencies: Vec<Duration>,
}

impl Load {
    /// # Errors
    ///
    /// When no port is free.
    pub fn start() -> Result<Self> {
        let poll = Poll::new()?;
        let servers = Servers::start(&poll)?;
        let buffer = vec![0; 256 * 1024];
        Ok(Self { poll, events: Events::with_capacity(256), buffer, servers, rng: Rng::new(1) })
    }

    /// Where the servers of both clusters listen.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn servers(&self) -> Result<[SocketAddr; 2]> {
        self.servers.addresses()
    }

    /// Sends so many requests, each connection the next one as soon as one is answered.
    ///
    /// # Errors
    ///
    /// When a connection breaks or nothing comes back.
    pub fn closed(
        &mut self,
        to: SocketAddr,
        request: &Request,
        shape: Shape,
        requests: usize,
    ) -> Result<Ran> {
        let mut callers = self.connect(to, shape.connections)?;
        let (began, cpu, clusters) = (Instant::now(), Cpu::of_this_thread()?, self.servers.answered());
        let mut ran = Ran { requests, ..Ran::default() };
        let mut begun = 0;
        'all: for _ in 0..shape.streams {
            for caller in &mut callers {
                if begun == requests {
                    break 'all;
                }
                caller.begin(request, began, &mut self.rng)?;
                begun += 1;
            }
        }
        let mut ended = Vec::new();
        let mut done = 0;
        let mut last = began;
        while done < requests {
            for caller in &mut callers {
                caller.go_on(request)?;
            }
            self.step(&mut callers, request, &mut ended, Some(DEADLINE))?;
            let now = Instant::now();
            ensure!(!ended.is_empty() || now - last < DEADLINE, "no answer within {} s", DEADLINE.as_secs());
            for end in ended.drain(..) {
                last = now;
                done += 1;
                ran.whole += usize::from(end.whole);
                if begun < requests {
                    callers[end.caller].begin(request, now, &mut self.rng)?;
                    begun += 1;
                }
            }
        }
        self.finish(ran, began, cpu, clusters)
    }

    /// Sends requests at a constant rate, whether or not earlier ones are answered, and times each from the moment
    /// at which it was due, so that a proxy that falls behind does not look better for it.
    ///
    /// # Errors
    ///
    /// When a connection breaks or nothing comes back.
    pub fn open(
        &mut self,
        to: SocketAddr,
        request: &Request,
        connections: usize,
        rate: f64,
        time: Duration,
    ) -> Result<Ran> {
        let mut callers = self.connect(to, connections)?;
        let requests = (rate * time.as_secs_f64()) as usize;
        let (began, cpu, clusters) = (Instant::now(), Cpu::of_this_thread()?, self.servers.answered());
        let due = |number: usize| began + Duration::from_secs_f64(number as f64 / rate);
        // Connections and caches are warm after a tenth.
        let counted = due(requests / 10);
        let mut ran = Ran { requests, ..Ran::default() };
        let mut ended = Vec::new();
        let (mut begun, mut done) = (0, 0);
        while done < requests {
            let now = Instant::now();
            ensure!(now < began + time + DEADLINE, "{} answers of {requests} are missing", requests - done);
            while begun < requests && due(begun) <= now {
                let caller = &mut callers[begun % connections];
                caller.begin(request, due(begun), &mut self.rng)?;
                caller.go_on(request)?;
                begun += 1;
            }
            // A timer of the system is late by more than what is measured, so this thread never sleeps.
            self.step(&mut callers, request, &mut ended, Some(Duration::ZERO))?;
            let now = Instant::now();
            for end in ended.drain(..) {
                done += 1;
                ran.whole += usize::from(end.whole);
                if counted <= end.due {
                    ran.latencies.push(now - end.due);
                }
            }
        }
        ran.latencies.sort_unstable();
        self.finish(ran, began, cpu, clusters)
    }

    fn finish(&self, mut ran: Ran, began: Instant, cpu: Cpu, clusters: [u64; 2]) -> Result<Ran> {
        ran.took = began.elapsed();
        ran.load = Cpu::of_this_thread()? - cpu;
        let answered = self.servers.answered();
        ran.clusters = [0, 1].map(|cluster| answered[cluster] - clusters[cluster]);
        Ok(ran)
    }

    fn connect(&mut self, to: SocketAddr, connections: usize) -> Result<Vec<Caller>> {
        let mut callers = Vec::new();
        for number in 0..connections {
            let stream =
                std::net::TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let token = Token(LISTENERS + 2 * number + 1);
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            let mut caller = Caller { link: Link::caller(stream), next: 1, calls: Vec::new() };
            caller.link.flush()?;
            callers.push(caller);
        }
        let began = Instant::now();
        let request = Request::predict("", 64);
        while callers.iter().any(|caller| caller.link.sender.stream_window.is_none()) {
            ensure!(began.elapsed() < DEADLINE, "{to} does not speak HTTP/2");
            self.step(&mut callers, &request, &mut Vec::new(), Some(DEADLINE))?;
        }
        Ok(callers)
    }

    fn step(
        &mut self,
        callers: &mut [Caller],
        request: &Request,
        ended: &mut Vec<Ended>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            answer => answer?,
        }
        for event in &self.events {
            let Token(token) = event.token();
            match token.checked_sub(LISTENERS) {
                None => self.servers.accept(token, &self.poll)?,
                Some(token) if token % 2 == 0 => self.servers.serve(token / 2, &mut self.buffer),
                Some(token) => {
                    let Some(caller) = callers.get_mut(token / 2) else { continue };
                    caller.hear(token / 2, &mut self.buffer, ended)?;
                    caller.go_on(request)?;
                }
            }
        }
        Ok(())
    }
}

impl Caller {
    fn begin(&mut self, request: &Request, due: Instant, rng: &mut Rng) -> Result<()> {
        let stream = self.next;
        self.next += 2;
        let window = self.link.sender.stream_window.context("a request before the settings")?;
        let drawn = request.begin(stream, &mut |among| rng.below(among), &mut self.link.sender.out);
        self.calls.push(Call { stream, window, sent: 0, drawn, came: 0, due });
        Ok(())
    }

    /// Sends what Envoy allows and the socket takes. Only a socket that was full tells when it takes more.
    fn go_on(&mut self, request: &Request) -> Result<()> {
        loop {
            let more = self.fill(request);
            self.link.flush().context("Envoy takes no more")?;
            if !more || 0 < self.link.sender.pending() {
                return Ok(());
            }
        }
    }

    /// Puts what Envoy allows into the buffer; whether the buffer was too small for it.
    fn fill(&mut self, request: &Request) -> bool {
        let sender = &mut self.link.sender;
        for call in &mut self.calls {
            while call.sent < request.len() {
                let allowed = usize::try_from(call.window.min(sender.window)).unwrap_or(0);
                let length = (request.len() - call.sent).min(MOST_IN_FRAME).min(allowed);
                if length == 0 {
                    break;
                }
                if MOST_PENDING < sender.pending() {
                    return true;
                }
                request.send(call.stream, call.sent, length, call.drawn, &mut sender.out);
                call.sent += length;
                call.window -= length as i64;
                sender.window -= length as i64;
            }
        }
        false
    }

    fn hear(&mut self, number: usize, buffer: &mut [u8], ended: &mut Vec<Ended>) -> Result<()> {
        let Self { link, calls, .. } = self;
        let open = link.read(buffer, |_, said| {
            let (stream, trailers, ends) = match said {
                Said::Headers { stream, ends } => (stream, true, ends),
                Said::Data { stream, ends, .. } => (stream, false, ends),
                Said::Reset { stream } => (stream, false, true),
                Said::Window { stream, .. } => (stream, false, false),
            };
            let Some(place) = calls.iter().position(|call| call.stream == stream) else { return Ok(()) };
            match said {
                Said::Data { length, .. } => calls[place].came += length,
                Said::Window { more, .. } => calls[place].window += more,
                Said::Headers { .. } | Said::Reset { .. } => {}
            }
            if ends {
                let call = calls.swap_remove(place);
                ended.push(Ended { caller: number, due: call.due, whole: trailers && call.came == ANSWER });
            }
            Ok(())
        })?;
        if !open {
            bail!("Envoy has closed a connection");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_and_servers_understand_each_other() {
        let mut load = Load::start().unwrap();
        let [one, two] = load.servers().unwrap();
        for size in [64, 1 << 10, 1 << 20, 4 << 20] {
            let request = Request::predict("resnet", size);
            let ran = load.closed(one, &request, Shape { connections: 2, streams: 3 }, 20).unwrap();
            assert_eq!((ran.whole, ran.clusters), (20, [20, 0]), "{size} bytes");
        }
        let request = Request::predict("resnet", 64);
        let ran = load.open(two, &request, 2, 1_000.0, Duration::from_millis(100)).unwrap();
        assert_eq!((ran.whole, ran.clusters), (100, [0, 100]));
        // The first tenth warms.
        assert_eq!(ran.latencies.len(), 90);
    }
}
