//! HTTP/2 frame by frame, for what a hostile or unlucky client sends.

use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::Broken;
use crate::grpc::flushed;

/// A connection of its own.
pub struct Raw {
    send: SendRequest<Bytes>,
    authority: String,
}

/// What a request does after its headers, one after the other.
pub enum Step {
    /// One DATA frame, which is with the socket before the next step.
    Data(Bytes),
    /// The last DATA frame.
    LastData(Bytes),
    /// Waits for whatever a test wants to have happened first.
    Wait(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// Trailers, which end the request.
    Trailers(HeaderMap),
    /// RST_STREAM.
    Reset(Reason),
}

impl Step {
    pub fn wait(event: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::Wait(Box::pin(event))
    }

    /// A DATA frame for every `size` bytes, the last of which ends the request.
    pub fn chunks(body: &Bytes, size: usize) -> Vec<Self> {
        let ends = (1..body.len().div_ceil(size)).map(|index| index * size);
        let mut steps: Vec<_> = ends.map(|end| Self::Data(body.slice(end - size..end))).collect();
        let rest = body.slice(steps.len() * size..);
        steps.push(Self::LastData(rest));
        steps
    }
}

/// Everything that came back on a stream, as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: Option<StatusCode>,
    pub headers: HeaderMap,
    /// One element for each DATA frame, or part of one that was read.
    pub data: Vec<Bytes>,
    pub trailers: Option<HeaderMap>,
    /// Why the stream was reset.
    pub reset: Option<Reason>,
    /// How the connection ended, if it did.
    pub broken: Option<String>,
}

impl Answer {
    pub fn body(&self) -> Vec<u8> {
        self.data.concat()
    }

    /// The value of a header or trailer, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let trailer = self.trailers.as_ref().and_then(|trailers| trailers.get(name));
        self.headers.get(name).or(trailer).and_then(|value| value.to_str().ok())
    }

    fn end(&mut self, error: h2::Error) {
        match Broken::from(error) {
            Broken::Reset(reason) => self.reset = Some(reason),
            other => self.broken = Some(other.to_string()),
        }
    }
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Result<Self, Broken> {
        Ok(Self { send: super::connect(address).await?, authority: address.to_string() })
    }

    /// Sends a POST with exactly these headers beside the pseudo-headers, takes the steps, and takes
    /// whatever comes back.
    ///
    /// No steps at all make the headers the whole request; without a step that ends it, it stays open until
    /// the answer has ended.
    pub async fn request(
        &self,
        path: &str,
        headers: &[(&str, &[u8])],
        steps: Vec<Step>,
    ) -> Result<Answer, Broken> {
        let mut stream = self.open(self.post(path, headers)?, steps.is_empty()).await?;
        let response = stream.response.take();
        let (_, answer) = tokio::join!(stream.take_steps(steps), answer(response));
        Ok(answer)
    }

    /// Sends the headers of a request; `end` makes them the whole request.
    pub async fn open(&self, request: Request<()>, end: bool) -> Result<RawStream, Broken> {
        let mut send = self.send.clone().ready().await?;
        let (response, body) = send.send_request(request, end)?;
        Ok(RawStream { response: Some(response), body })
    }

    /// A POST over this connection.
    pub fn post(&self, path: &str, headers: &[(&str, &[u8])]) -> Result<Request<()>, Broken> {
        let uri = http::Uri::builder().scheme("http").authority(self.authority.as_str()).path_and_query(path);
        let no_request = |error: &dyn std::fmt::Display| Broken::Connection(format!("{path}: {error}"));
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.build().map_err(|error| no_request(&error))?;
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| no_request(&error))?;
            let value = HeaderValue::from_bytes(value).map_err(|error| no_request(&error))?;
            request.headers_mut().append(name, value);
        }
        Ok(request)
    }
}

/// A request whose frames are sent one by one. Dropped before its answer, it is cancelled.
pub struct RawStream {
    response: Option<ResponseFuture>,
    body: SendStream<Bytes>,
}

impl RawStream {
    /// Sends one DATA frame and waits until it is with the socket.
    pub async fn send(&mut self, data: impl Into<Bytes>) -> Result<(), Broken> {
        self.body.send_data(data.into(), false)?;
        Ok(flushed(&mut self.body).await?)
    }

    /// Sends the last DATA frame.
    pub fn send_last(&mut self, data: impl Into<Bytes>) -> Result<(), Broken> {
        Ok(self.body.send_data(data.into(), true)?)
    }

    pub fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Broken> {
        Ok(self.body.send_trailers(trailers)?)
    }

    /// Resets the stream; what is not with the socket yet is dropped.
    pub fn reset(&mut self, reason: Reason) {
        self.body.send_reset(reason);
    }

    /// Takes whatever comes back. The request need not have ended.
    pub async fn answer(&mut self) -> Answer {
        answer(self.response.take()).await
    }

    async fn take_steps(&mut self, steps: Vec<Step>) -> Result<(), Broken> {
        for step in steps {
            match step {
                Step::Data(data) => self.send(data).await?,
                Step::LastData(data) => self.send_last(data)?,
                Step::Wait(event) => event.await,
                Step::Trailers(trailers) => self.send_trailers(trailers)?,
                Step::Reset(reason) => self.reset(reason),
            }
        }
        Ok(())
    }
}

async fn answer(response: Option<ResponseFuture>) -> Answer {
    let mut answer = Answer::default();
    let Some(response) = response else { return answer };
    if let Err(error) = read(response, &mut answer).await {
        answer.end(error);
    }
    answer
}

async fn read(response: ResponseFuture, answer: &mut Answer) -> Result<(), h2::Error> {
    let response: Response<_> = response.await?;
    answer.status = Some(response.status());
    answer.headers = response.headers().clone();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        answer.data.push(data);
    }
    answer.trailers = body.trailers().await?;
    Ok(())
}
