//! The REST side: HTTP/1.1 with TensorFlow Serving's paths, JSON and codes, and `/control/` beside them.

mod answer;
mod control;
mod path;
mod request;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

use crate::errors::Failure;
use crate::faults::Action;
use crate::framing;
use crate::inference;
use crate::listen::{Commands, told};
use crate::messages::{ClassificationRequest, ModelSpec, PredictRequest, RegressionRequest};
use crate::record::{Entry, Outcome};
use crate::rpc::{Protocol, Rpc};
use crate::servable::Servable;
use crate::server::Shared;
use path::Route;

/// The connection is to be cut instead of answered.
#[derive(Debug)]
pub(crate) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut by a fault")
    }
}

impl std::error::Error for Cut {}

/// Serves one connection until it ends or is told to.
pub(crate) async fn connection(shared: Arc<Shared>, stream: TcpStream, mut commands: Commands) {
    let of_requests = commands.clone();
    let service = service_fn(move |request| serve(Arc::clone(&shared), request, of_requests.clone()));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // How a connection ends, its requests have recorded.
        _ = connection.as_mut() => return,
        _ = told(&mut commands) => (),
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn serve(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    mut commands: Commands,
) -> Result<Response<Parts>, Cut> {
    let (parts, body) = request.into_parts();
    if let Some(path) = parts.uri.path().strip_prefix("/control/") {
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        return Ok(control::serve(&shared, &parts.method, path, &body));
    }
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let route = path::route(parts.method.as_str(), target);
    let rpc = if let Route::Call(rpc, _) = route { Some(rpc) } else { None };
    let entry = shared.recorder.begin(Protocol::Rest, rpc, &parts);
    let body = collect(&entry, body).await?;
    let (rpc, spec) = match route {
        Route::Call(rpc, spec) => (rpc, spec),
        Route::Outside => return Ok(answer(&entry, 404, String::new())),
        Route::Overflow => return Ok(answer(&entry, 400, String::new())),
        Route::Refused(failure) => return Ok(refuse(&entry, &failure)),
        Route::Preflight => {
            let origin = parts.headers.get("origin").is_some_and(|origin| {
                let origin = origin.as_bytes();
                origin.starts_with(b"http://") || origin.starts_with(b"https://")
            });
            return Ok(answer(&entry, if origin { 200 } else { 400 }, String::new()));
        }
    };
    entry.note(|received| received.model = Some(spec.name.clone()));
    let gzipped = parts.headers.get("content-encoding").is_some_and(|it| it == "gzip");
    let body = if gzipped { framing::gunzip(&body).unwrap_or_default().into() } else { body };
    let call = match Call::read(rpc, spec, &body, &shared) {
        Ok(call) => call,
        Err(failure) => return Ok(refuse(&entry, &failure)),
    };
    entry.arrived();
    let mut action = None;
    if let Some(servable) = call.servable() {
        entry.note(|received| received.version = Some(servable.version));
        let draw = shared.faults.draw(&servable.model, servable.version);
        if draw.action.is_some() {
            servable.tally.add_fault();
        }
        if !draw.delay.is_zero() {
            tokio::time::sleep(draw.delay).await;
        }
        action = draw.action;
    }
    match action {
        Some(Action::Fail { code, message, .. }) => return Ok(refuse(&entry, &Failure::new(code, message))),
        Some(Action::Http(status)) => return Ok(answer(&entry, status, String::new())),
        Some(Action::Abort) => {
            entry.end(Outcome::Reset);
            return Err(Cut);
        }
        Some(Action::Hang | Action::Stall) => {
            told(&mut commands).await;
            entry.end(Outcome::Reset);
            return Err(Cut);
        }
        Some(Action::Reset | Action::NoStatus) | None => (),
    }
    let text = match call.run() {
        Ok(text) => text,
        Err(failure) => return Ok(refuse(&entry, &failure)),
    };
    if let Some(servable) = call.servable() {
        entry.executed(&servable.tally);
    }
    if action == Some(Action::Reset) {
        entry.end(Outcome::Reset);
        return Ok(response(StatusCode::OK, Parts::cut(text)));
    }
    Ok(answer(&entry, 200, text))
}

async fn collect(entry: &Entry, mut body: Incoming) -> Result<Bytes, Cut> {
    let mut whole = BytesMut::new();
    let mut hash = entry.is_remembered().then(Sha256::new);
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(|_| Cut)?.into_data() else { continue };
        entry.note(|received| received.body_bytes += chunk.len() as u64);
        if let Some(hash) = &mut hash {
            hash.update(&chunk);
        }
        whole.extend_from_slice(&chunk);
    }
    let hash = hash.map(|hash| hash.finalize().into());
    entry.note(|received| {
        received.message_bytes = received.body_bytes;
        received.sha256 = hash;
    });
    Ok(whole.freeze())
}

/// A request that was read and whose version is found.
enum Call {
    Predict(PredictRequest, request::Format, Servable),
    Classify(ClassificationRequest, Servable),
    Regress(RegressionRequest, Servable),
    Metadata(Servable),
    Status(String),
}

impl Call {
    fn read(rpc: Rpc, mut spec: ModelSpec, body: &[u8], shared: &Shared) -> Result<Self, Failure> {
        if rpc == Rpc::GetModelStatus {
            return shared.servables.status(&spec).map(|versions| Self::Status(answer::status(&versions)));
        }
        if rpc == Rpc::GetModelMetadata {
            return shared.servables.resolve(&spec).map(Self::Metadata);
        }
        let document = request::parse(body)?;
        spec.signature_name = request::signature_name(&document)?;
        if rpc == Rpc::Predict {
            // Predict needs the signature to read its inputs, so a missing model shows before bad inputs.
            let servable = shared.servables.resolve(&spec)?;
            let mut request = PredictRequest { model_spec: Some(spec), ..PredictRequest::default() };
            let format = request::read_predict(&document, &mut request)?;
            return Ok(Self::Predict(request, format, servable));
        }
        let input = Some(request::read_examples(&document)?);
        let servable = shared.servables.resolve(&spec)?;
        let model_spec = Some(spec);
        Ok(match rpc {
            Rpc::Classify => Self::Classify(ClassificationRequest { model_spec, input }, servable),
            _ => Self::Regress(RegressionRequest { model_spec, input }, servable),
        })
    }

    const fn servable(&self) -> Option<&Servable> {
        match self {
            Self::Predict(_, _, servable)
            | Self::Classify(_, servable)
            | Self::Regress(_, servable)
            | Self::Metadata(servable) => Some(servable),
            Self::Status(_) => None,
        }
    }

    fn run(&self) -> Result<String, Failure> {
        match self {
            Self::Predict(request, format, servable) => {
                let response = inference::predict(request, servable)?;
                answer::predictions(&response.outputs.values().collect::<Vec<_>>(), *format)
            }
            Self::Classify(request, servable) => {
                let response = inference::classify(request, servable)?;
                Ok(answer::classifications(&response.result.unwrap_or_default()))
            }
            Self::Regress(request, servable) => {
                let response = inference::regress(request, servable)?;
                Ok(answer::regressions(&response.result.unwrap_or_default()))
            }
            Self::Metadata(servable) => Ok(answer::metadata(&servable.model, servable.version)),
            Self::Status(text) => Ok(text.clone()),
        }
    }
}

fn answer(entry: &Entry, status: u16, text: String) -> Response<Parts> {
    entry.end(Outcome::Completed(status));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response(status, Parts::whole(text))
}

fn refuse(entry: &Entry, failure: &Failure) -> Response<Parts> {
    answer(entry, failure.http(), answer::error(&failure.message))
}

fn response(status: StatusCode, body: Parts) -> Response<Parts> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// A body: a whole one, or a part of one after which the connection is cut.
pub(crate) struct Parts {
    /// What the headers promise.
    length: u64,
    left: VecDeque<Part>,
}

enum Part {
    Bytes(Bytes),
    /// Gives the connection one turn to send what it has.
    Turn,
    Cut,
}

impl Parts {
    fn whole(text: String) -> Self {
        let whole = Bytes::from(text);
        let length = whole.len() as u64;
        Self { length, left: [Part::Bytes(whole)].into_iter().filter(|_| 0 < length).collect() }
    }

    fn cut(text: String) -> Self {
        let whole = Bytes::from(text);
        let left = [Part::Bytes(whole.slice(..whole.len() / 2)), Part::Turn, Part::Cut];
        Self { length: whole.len() as u64, left: left.into() }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.left.pop_front() {
            None => Poll::Ready(None),
            Some(Part::Bytes(bytes)) => {
                self.length -= bytes.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Part::Turn) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Part::Cut) => Poll::Ready(Some(Err(Cut))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
