//! HTTP/1.1 requests, a connection each.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// The answer to a REST request.
#[derive(Clone, Debug)]
pub struct RestReply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub async fn get(address: SocketAddr, target: &str) -> anyhow::Result<RestReply> {
    request(address, Method::GET, target, &[], Bytes::new()).await
}

pub async fn post(
    address: SocketAddr,
    target: &str,
    body: impl Into<Bytes> + Send,
) -> anyhow::Result<RestReply> {
    request(address, Method::POST, target, &[("content-type", b"application/json")], body.into()).await
}

/// Sends any request. An answer that breaks off is an error.
pub async fn request(
    address: SocketAddr,
    method: Method,
    target: &str,
    headers: &[(&str, &[u8])],
    body: Bytes,
) -> anyhow::Result<RestReply> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the answer has come; how, the request sees.
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(target);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", address.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value)?);
    }
    let response = send.send_request(request.body(Full::new(body))?).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    drop(send);
    connection.abort();
    Ok(RestReply { status: head.status.as_u16(), headers: head.headers, body })
}

impl RestReply {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The numbers of a Predict of a vector.
    #[expect(clippy::cast_possible_truncation, reason = "they were floats before they were written")]
    pub fn values(&self) -> Vec<f32> {
        let json = self.json();
        let list = json.get("predictions").or_else(|| json.get("outputs")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_f64).map(|value| value as f32).collect()
    }

    /// The text of an error.
    pub fn error(&self) -> Option<String> {
        self.json().get("error").and_then(Value::as_str).map(str::to_owned)
    }
}
