//! Another way to Envoy than a plain connection: from another address, or with TLS around it.

use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Carries every connection that it takes on to Envoy, until it is dropped.
pub struct Relay {
    pub addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// To Envoy it is a caller with this address.
    pub async fn from_address(source: IpAddr, envoy: SocketAddr) -> Self {
        Self::start(move || async move {
            let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket.connect(envoy).await
        })
        .await
    }

    /// To Envoy it is a caller who speaks TLS.
    pub async fn over_tls(config: Arc<ClientConfig>, envoy: SocketAddr) -> Self {
        Self::start(move || {
            let connector = TlsConnector::from(Arc::clone(&config));
            async move {
                let name = ServerName::IpAddress(envoy.ip().into());
                connector.connect(name, TcpStream::connect(envoy).await?).await
            }
        })
        .await
    }

    /// Waits with every connection until it is told where Envoy is.
    pub async fn later(envoy: watch::Receiver<Option<SocketAddr>>) -> Self {
        Self::start(move || {
            let mut envoy = envoy.clone();
            async move {
                let known = envoy.wait_for(Option::is_some).await.map_err(Error::other)?.unwrap();
                TcpStream::connect(known).await
            }
        })
        .await
    }

    async fn start<S, F>(connect: impl Fn() -> F + Send + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Result<S>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                let connect = connect();
                tokio::spawn(async move {
                    // How a connection fails, the caller sees by its end.
                    if let Ok(mut envoy) = connect.await {
                        let _ = copy_bidirectional(&mut caller, &mut envoy).await;
                    }
                });
            }
        });
        Self { addr, accepting }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
