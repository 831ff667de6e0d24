//! The gRPC side: HTTP/2 streams in, TensorFlow Serving's answers and faults out.
//!
//! It stands on `h2` and not on tonic's server, because a fault has to choose the very frames of an answer:
//! a status in the headers or in trailers, a reset after a part of the body.
//! Like a gRPC C-core server it executes a method whatever the content-type is.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use tokio::net::TcpStream;
use tonic::Code;

use crate::call::Call;
use crate::errors::{self, Failure};
use crate::faults::{Action, Draw, Place};
use crate::framing::{self, Collected, Collector};
use crate::listen::{Command, Commands, told};
use crate::record::{Entry, Outcome};
use crate::rpc::{Protocol, Rpc};
use crate::servable::Servable;
use crate::server::Shared;

/// What a gRPC C-core server announces: windows and frames that hold a tensor.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const FRAME: u32 = 4 << 20;
/// A proxy that refuses a call resets its stream; many such calls are no attack on a server under test.
const RESETS: usize = 1 << 20;

const MESSAGE_HEADER: HeaderName = HeaderName::from_static("grpc-message");
/// What gRPC encodes in a message: all that is not printable ASCII, and the percent sign itself.
const MESSAGE: AsciiSet = CONTROLS.add(b'%');

/// A stream that is gone: nothing is left to answer to.
struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

/// Serves one connection until it ends or is told to.
pub(crate) async fn connection(shared: Arc<Shared>, stream: TcpStream, mut commands: Commands) {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_reset_streams(RESETS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(None)
        // One byte of buffer makes `flushed` wait for the socket; nothing else here asks for capacity.
        .max_send_buffer_size(1);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let of_streams = commands.clone();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    tokio::spawn(serve(Arc::clone(&shared), request, respond, of_streams.clone()));
                }
                Some(Err(_)) | None => return,
            },
            command = told(&mut commands) => {
                if command == Command::Drain {
                    connection.graceful_shutdown();
                }
                break;
            }
        }
    }
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(serve(Arc::clone(&shared), request, respond, of_streams.clone()));
    }
}

async fn serve(
    shared: Arc<Shared>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    commands: Commands,
) {
    let (parts, body) = request.into_parts();
    let rpc = Rpc::from_path(parts.uri.path());
    let entry = shared.recorder.begin(Protocol::Grpc, rpc, &parts);
    let mut stream = Stream { shared, entry, respond, commands };
    // A stream that is gone is recorded as cancelled when its entry is dropped.
    let _ = stream.answer(rpc, &parts.headers, body).await;
}

struct Stream {
    shared: Arc<Shared>,
    entry: Entry,
    respond: SendResponse<Bytes>,
    commands: Commands,
}

impl Stream {
    async fn answer(&mut self, rpc: Option<Rpc>, headers: &HeaderMap, body: RecvStream) -> Result<(), Gone> {
        let Some(rpc) = rpc else {
            return self.fail(Failure::new(Code::Unimplemented, ""), Place::TrailersOnly);
        };
        let Some(collected) = self.collect(body).await? else {
            return self.fail(errors::undecodable(), Place::TrailersOnly);
        };
        let encoding = headers.get("grpc-encoding").map(HeaderValue::as_bytes);
        let decoded = collected.inflate(encoding).and_then(|message| Call::decode(rpc, message));
        let call = match decoded {
            Ok(call) => call,
            Err(failure) => return self.fail(failure, Place::TrailersOnly),
        };
        self.entry.arrived();
        self.entry.note(|received| received.model = call.model().map(str::to_owned));
        let servable = match call.resolve(&self.shared.servables) {
            Ok(servable) => servable,
            Err(failure) => return self.fail(failure, Place::TrailersOnly),
        };
        let draw = self.draw(servable.as_ref());
        if !draw.delay.is_zero() {
            self.unless_gone(tokio::time::sleep(draw.delay)).await?;
        }
        match draw.action {
            Some(Action::Fail { code, message, place }) => {
                return self.fail(Failure::new(code, message), place);
            }
            Some(Action::Http(status)) => return self.fail_without_grpc(status),
            Some(Action::Hang) => return self.hang().await,
            Some(Action::Abort) => {
                self.entry.end(Outcome::Reset);
                self.respond.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            Some(Action::Reset | Action::Stall | Action::NoStatus) | None => (),
        }
        let answer = call.run(&self.shared.servables, servable.as_ref());
        match (answer, servable) {
            (Err(failure), _) => self.fail(failure, Place::TrailersOnly),
            (Ok(message), servable) => {
                if let Some(servable) = servable {
                    self.entry.executed(&servable.tally);
                }
                match draw.action {
                    Some(Action::Reset) => self.cut(&message).await,
                    Some(Action::Stall) => self.stall(&message).await,
                    Some(Action::NoStatus) => self.end_without_status(&message),
                    _ => self.succeed(&message),
                }
            }
        }
    }

    /// The first message of the body; none when the body ends before it does.
    async fn collect(&mut self, mut body: RecvStream) -> Result<Option<Collected>, Gone> {
        let mut collector = Collector::new(self.entry.is_remembered());
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            self.entry.note(|received| received.body_bytes += chunk.len() as u64);
            collector.push(chunk);
        }
        // A reset may come in place of the end.
        body.trailers().await?;
        let collected = collector.finish();
        if let Some(collected) = &collected {
            self.entry.note(|received| {
                received.message_bytes = collected.bytes.len() as u64;
                received.sha256 = collected.sha256;
            });
        }
        Ok(collected)
    }

    fn draw(&self, servable: Option<&Servable>) -> Draw {
        let Some(servable) = servable else { return Draw::default() };
        self.entry.note(|received| received.version = Some(servable.version));
        let draw = self.shared.faults.draw(&servable.model, servable.version);
        if draw.action.is_some() {
            servable.tally.add_fault();
        }
        draw
    }

    async fn unless_gone<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Gone> {
        tokio::select! {
            done = future => Ok(done),
            _ = poll_fn(|cx| self.respond.poll_reset(cx)) => Err(Gone),
        }
    }

    /// Answers nothing until the client goes away or the server shuts down.
    async fn hang(&mut self) -> Result<(), Gone> {
        let mut commands = self.commands.clone();
        self.unless_gone(told(&mut commands)).await?;
        self.respond.send_reset(Reason::CANCEL);
        self.entry.end(Outcome::Reset);
        Ok(())
    }

    fn succeed(&mut self, message: &[u8]) -> Result<(), Gone> {
        let mut stream = self.respond.send_response(response_headers(), false)?;
        stream.send_data(framing::frame(message), false)?;
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        // A gRPC C-core server sends the message even when it is empty.
        trailers.insert("grpc-message", HeaderValue::from_static(""));
        self.entry.end(Outcome::Completed(0));
        stream.send_trailers(trailers)?;
        Ok(())
    }

    fn fail(&mut self, failure: Failure, place: Place) -> Result<(), Gone> {
        let failure = failure.cut();
        let code = failure.code as u16;
        let mut status = HeaderMap::with_capacity(2);
        status.insert("grpc-status", HeaderValue::from(code));
        let text = percent_encode(failure.message.as_bytes(), &MESSAGE).to_string();
        // What is encoded is always a header's value.
        status.extend(HeaderValue::try_from(text).ok().map(|text| (MESSAGE_HEADER, text)));
        let mut response = response_headers();
        self.entry.end(Outcome::Completed(code));
        match place {
            Place::TrailersOnly => {
                response.headers_mut().extend(status);
                self.respond.send_response(response, true)?;
            }
            Place::AfterHeaders => {
                let mut stream = self.respond.send_response(response, false)?;
                stream.send_trailers(status)?;
            }
        }
        Ok(())
    }

    /// Answers as a server that knows no gRPC.
    fn fail_without_grpc(&mut self, status: u16) -> Result<(), Gone> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.entry.end(Outcome::Completed(status));
        self.respond.send_response(response, true)?;
        Ok(())
    }

    fn end_without_status(&mut self, message: &[u8]) -> Result<(), Gone> {
        let mut stream = self.respond.send_response(response_headers(), false)?;
        self.entry.end(Outcome::Completed(0));
        stream.send_data(framing::frame(message), true)?;
        Ok(())
    }

    /// Sends the headers and the first half of the answer.
    async fn begin_answer(&mut self, message: &[u8]) -> Result<SendStream<Bytes>, Gone> {
        let mut stream = self.respond.send_response(response_headers(), false)?;
        let frame = framing::frame(message);
        stream.send_data(frame.slice(..frame.len() / 2), false)?;
        flushed(&mut stream).await?;
        Ok(stream)
    }

    /// Begins to answer, then is silent until the client goes away or the server shuts down.
    async fn stall(&mut self, message: &[u8]) -> Result<(), Gone> {
        let mut stream = self.begin_answer(message).await?;
        let mut commands = self.commands.clone();
        tokio::select! {
            _ = told(&mut commands) => (),
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return Err(Gone),
        }
        stream.send_reset(Reason::CANCEL);
        self.entry.end(Outcome::Reset);
        Ok(())
    }

    /// Begins to answer, then resets the stream.
    async fn cut(&mut self, message: &[u8]) -> Result<(), Gone> {
        let mut stream = self.begin_answer(message).await?;
        self.entry.end(Outcome::Reset);
        stream.send_reset(Reason::INTERNAL_ERROR);
        Ok(())
    }
}

fn response_headers() -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity, deflate, gzip"));
    response
}

/// Waits until all data of a stream is with the socket, since a reset drops what is queued.
///
/// A connection of one byte of send buffer has capacity for a stream only when that stream has none queued.
pub(crate) async fn flushed(stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(capacity) => {
                capacity?;
            }
            None => return Err(Reason::STREAM_CLOSED.into()),
        }
    }
    Ok(())
}
