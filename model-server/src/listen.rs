//! A TCP port that can stop listening and start again without losing its number.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};

/// How long requests in flight may take when a port drains.
const GRACE: Duration = Duration::from_secs(5);
const BACKLOG: i32 = 1024;

/// What a port is told to do with its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Serve,
    /// Finish what is in flight and take no more.
    Drain,
    /// Cut every connection.
    Cut,
}

/// Told to every connection and to requests that would never end by themselves.
pub(crate) type Commands = watch::Receiver<Command>;

/// Waits until there is more to do than to serve. A server that was dropped cuts its connections.
pub(crate) async fn told(commands: &mut Commands) -> Command {
    commands.wait_for(|&command| command != Command::Serve).await.map_or(Command::Cut, |command| *command)
}

pub(crate) type Serve =
    Arc<dyn Fn(TcpStream, Commands) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

pub(crate) struct Port {
    address: SocketAddr,
    /// Bound but never listening: keeps the number while the port refuses connections.
    _reserved: Socket,
    serve: Serve,
    listening: Mutex<Option<Listening>>,
}

struct Listening {
    command: watch::Sender<Command>,
    task: JoinHandle<()>,
}

impl Port {
    pub(crate) async fn open(address: SocketAddr, serve: Serve) -> anyhow::Result<Self> {
        if address.port() != 0 {
            // `SO_REUSEPORT` would hide that another server has the port; a plain bind does not.
            drop(bind(address, Sharing::None)?);
        }
        let reserved = bind(address, Sharing::Port)?;
        let address = reserved.local_addr()?.as_socket().context("a TCP socket without an IP address")?;
        let port = Self { address, _reserved: reserved, serve, listening: Mutex::new(None) };
        port.listen().await?;
        Ok(port)
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens again; does nothing when it does already.
    pub(crate) async fn listen(&self) -> anyhow::Result<()> {
        let mut listening = self.listening.lock().await;
        if listening.is_some() {
            return Ok(());
        }
        let socket = bind(self.address, Sharing::Port)?;
        socket.listen(BACKLOG).with_context(|| format!("cannot listen on {}", self.address))?;
        let listener = TcpListener::from_std(socket.into())?;
        let (command, commands) = watch::channel(Command::Serve);
        let task = tokio::spawn(accept(listener, commands, Arc::clone(&self.serve)));
        *listening = Some(Listening { command, task });
        Ok(())
    }

    /// Stops listening. When it returns, connections are refused and the old ones are gone.
    pub(crate) async fn stop(&self, command: Command) {
        let Some(listening) = self.listening.lock().await.take() else { return };
        listening.command.send_replace(command);
        // The task ends by itself once it has seen the command; it cannot have panicked on a value of ours.
        let _ = listening.task.await;
    }
}

/// Whether another socket of this process may be bound to the same port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    None,
    Port,
}

fn bind(address: SocketAddr, sharing: Sharing) -> anyhow::Result<Socket> {
    let bound = || -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of a stopped listener may still be in TIME_WAIT.
        socket.set_reuse_address(true)?;
        if sharing == Sharing::Port {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    bound().with_context(|| format!("cannot bind {address}: is another server on this port?"))
}

async fn accept(listener: TcpListener, mut commands: Commands, serve: Serve) {
    let mut connections = JoinSet::new();
    let of_connections = commands.clone();
    let command = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Small frames go out at once; a peer that is gone already shows up when it is read.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(stream, of_connections.clone()));
                }
                // Out of descriptors: the next connection that ends makes room.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => (),
            command = told(&mut commands) => break command,
        }
    };
    drop(listener);
    if command == Command::Drain {
        let drained = async { while connections.join_next().await.is_some() {} };
        // What outlasts the grace is cut below.
        let _ = tokio::time::timeout(GRACE, drained).await;
    }
    connections.shutdown().await;
}
