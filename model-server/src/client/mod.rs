//! A client for tests, which shows everything of an answer and can send anything.
//!
//! [`Client`] makes gRPC calls, [`raw`] single HTTP/2 frames, [`rest`] HTTP/1.1 requests.

pub mod raw;
mod reply;
mod request;
pub mod rest;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use prost::Message;
use tokio::net::{TcpSocket, TcpStream};

use crate::framing;
use crate::messages::{
    ClassificationRequest, ClassificationResponse, GetModelMetadataRequest, GetModelMetadataResponse,
    GetModelStatusRequest, GetModelStatusResponse, MultiInferenceRequest, MultiInferenceResponse,
    PredictRequest, PredictResponse, RegressionRequest, RegressionResponse, ReloadConfigRequest,
    ReloadConfigResponse,
};
use crate::rpc::Rpc;
pub use reply::{Broken, Reply};
pub use request::{
    Asked, classify_request, examples, metadata_request, model_spec, multi_inference_request,
    predict_content_request, predict_request, predict_tensor, regress_request, status_request,
};

const WINDOW: u32 = 16 << 20;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// One HTTP/2 connection that calls are made on; a clone shares it.
#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
    authority: String,
    metadata: HeaderMap,
    deadline: Option<Duration>,
    compression: Compression,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    Identity,
    Gzip,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self, Broken> {
        connect(address).await.map(|send| Self::on(send, address))
    }

    /// Connects from an address of this machine, such as another of 127.0.0.0/8, so that a server sees another caller.
    pub async fn connect_from(from: IpAddr, address: SocketAddr) -> Result<Self, Broken> {
        let failed = |error: std::io::Error| Broken::Connect(format!("{from} to {address}: {error}"));
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(failed)?;
        socket.bind(SocketAddr::new(from, 0)).map_err(failed)?;
        let stream = socket.connect(address).await.map_err(failed)?;
        handshake(stream, address).await.map(|send| Self::on(send, address))
    }

    fn on(send: SendRequest<Bytes>, address: SocketAddr) -> Self {
        Self {
            send,
            authority: address.to_string(),
            metadata: HeaderMap::new(),
            deadline: None,
            compression: Compression::Identity,
        }
    }

    /// Adds metadata to every call; the value may be any bytes that HTTP allows.
    ///
    /// # Panics
    ///
    /// When the name or the value can be no header.
    #[must_use]
    pub fn with_metadata(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let pair = (
            HeaderName::from_bytes(name.as_bytes()).expect("a header's name"),
            HeaderValue::from_bytes(value.as_ref()).expect("a header's value"),
        );
        self.metadata.append(pair.0, pair.1);
        self
    }

    /// Sends `grpc-timeout` and gives up by itself when it has passed.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    #[must_use]
    pub fn with_authority(mut self, authority: &str) -> Self {
        authority.clone_into(&mut self.authority);
        self
    }

    /// Compresses messages.
    #[must_use]
    pub fn with_gzip(mut self) -> Self {
        self.compression = Compression::Gzip;
        self
    }

    pub async fn predict(&self, request: &PredictRequest) -> Result<Reply<PredictResponse>, Broken> {
        self.unary(Rpc::Predict, request).await
    }

    pub async fn classify(
        &self,
        request: &ClassificationRequest,
    ) -> Result<Reply<ClassificationResponse>, Broken> {
        self.unary(Rpc::Classify, request).await
    }

    pub async fn regress(&self, request: &RegressionRequest) -> Result<Reply<RegressionResponse>, Broken> {
        self.unary(Rpc::Regress, request).await
    }

    pub async fn multi_inference(
        &self,
        request: &MultiInferenceRequest,
    ) -> Result<Reply<MultiInferenceResponse>, Broken> {
        self.unary(Rpc::MultiInference, request).await
    }

    pub async fn get_model_metadata(
        &self,
        request: &GetModelMetadataRequest,
    ) -> Result<Reply<GetModelMetadataResponse>, Broken> {
        self.unary(Rpc::GetModelMetadata, request).await
    }

    pub async fn get_model_status(
        &self,
        request: &GetModelStatusRequest,
    ) -> Result<Reply<GetModelStatusResponse>, Broken> {
        self.unary(Rpc::GetModelStatus, request).await
    }

    pub async fn reload_config(
        &self,
        request: &ReloadConfigRequest,
    ) -> Result<Reply<ReloadConfigResponse>, Broken> {
        self.unary(Rpc::HandleReloadConfigRequest, request).await
    }

    async fn unary<A: Message + Default>(
        &self,
        rpc: Rpc,
        request: &impl Message,
    ) -> Result<Reply<A>, Broken> {
        let message = request.encode_to_vec();
        let body = match self.compression {
            Compression::Identity => framing::frame(&message),
            Compression::Gzip => framing::gzip_frame(&message),
        };
        self.exchange(rpc.path(), Some(GRPC), body, |bytes| A::decode(bytes).ok()).await
    }

    /// Sends a message, whole and framed, that need not be one.
    pub async fn call(&self, path: &str, message: &[u8]) -> Result<Reply<Bytes>, Broken> {
        self.exchange(path, Some(GRPC), framing::frame(message), Some).await
    }

    /// Sends any body, prefix included, to any path with any content-type or none.
    ///
    /// # Panics
    ///
    /// When the content-type can be no header.
    pub async fn send(
        &self,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Result<Reply<Bytes>, Broken> {
        let content_type = content_type.map(|it| HeaderValue::from_str(it).expect("a header's value"));
        self.exchange(path, content_type, body.into(), Some).await
    }

    async fn exchange<A>(
        &self,
        path: &str,
        content_type: Option<HeaderValue>,
        body: Bytes,
        decode: impl FnOnce(Bytes) -> Option<A>,
    ) -> Result<Reply<A>, Broken> {
        let call = self.run(path, content_type, body);
        let (head, body, trailers) = match self.deadline {
            None => call.await?,
            Some(deadline) => tokio::time::timeout(deadline, call).await.map_err(|_| Broken::Deadline)??,
        };
        Ok(Reply::new(head, body, trailers, decode))
    }

    async fn run(
        &self,
        path: &str,
        content_type: Option<HeaderValue>,
        body: Bytes,
    ) -> Result<(http::response::Parts, Bytes, Option<HeaderMap>), Broken> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::builder()
            .scheme("http")
            .authority(self.authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(|error| Broken::Connection(format!("{path}: {error}")))?;
        let headers = request.headers_mut();
        headers.insert("te", HeaderValue::from_static("trailers"));
        if let Some(content_type) = content_type {
            headers.insert("content-type", content_type);
        }
        if self.compression == Compression::Gzip {
            headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
        }
        if let Some(deadline) = self.deadline {
            headers.insert("grpc-timeout", timeout(deadline));
        }
        headers.extend(self.metadata.clone());
        let mut send = self.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            // An answer that did not wait for the body has closed the stream; then the answer says it all.
            let _ = stream.send_data(body, true);
        }
        let (head, mut body) = response.await?.into_parts();
        let mut whole = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            whole.extend_from_slice(&chunk);
        }
        let trailers = body.trailers().await?;
        Ok((head, whole.freeze(), trailers))
    }
}

/// The `grpc-timeout` header: at most eight digits and a unit.
fn timeout(deadline: Duration) -> HeaderValue {
    let digits = 99_999_999;
    let text = match (deadline.as_micros(), deadline.as_millis()) {
        (micros, _) if micros <= digits => format!("{micros}u"),
        (_, millis) if millis <= digits => format!("{millis}m"),
        _ => format!("{}S", deadline.as_secs().min(99_999_999)),
    };
    // Digits and a letter are always a header's value.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("1S"))
}

/// Opens an HTTP/2 connection with prior knowledge.
async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>, Broken> {
    let stream =
        TcpStream::connect(address).await.map_err(|error| Broken::Connect(format!("{address}: {error}")))?;
    handshake(stream, address).await
}

async fn handshake(stream: TcpStream, address: SocketAddr) -> Result<SendRequest<Bytes>, Broken> {
    let failed = |error: &dyn std::fmt::Display| Broken::Connect(format!("{address}: {error}"));
    stream.set_nodelay(true).map_err(|error| failed(&error))?;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .enable_push(false)
        // One byte of buffer makes `raw` wait for the socket; nothing else here asks for capacity.
        .max_send_buffer_size(1);
    let (send, connection) = builder.handshake(stream).await.map_err(|error| failed(&error))?;
    // It ends when the last clone of the client is gone; calls see how.
    tokio::spawn(connection);
    Ok(send)
}
