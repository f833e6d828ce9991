//! Connections with limits: their number, the time a request's head may take, the time a client may leave an
//! answer untouched.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::http::StatusCode;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::error::ApiError;

/// Connections that are being told that there are too many.
const REFUSALS: usize = 32;

/// The whole answer to a connection too many.
fn refusal() -> String {
    let body = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections")
        .code("connection_limit")
        .body()
        .to_string();
    let head = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-type: application/json";
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Requests of a connection that are being answered; while there are any, silence of the client is no fault.
#[derive(Clone, Default)]
pub(crate) struct Activity(Arc<AtomicUsize>);

/// A request that is being answered, until dropped.
pub(crate) struct Answering(Activity);

impl Activity {
    pub(crate) fn begin(&self) -> Answering {
        self.0.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn is_busy(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A listener that lets so many connections in.
pub(crate) struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    idle: Duration,
}

impl Door {
    pub(crate) fn new(listener: TcpListener, connections: usize, idle: Duration) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(connections)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            idle,
        }
    }

    fn refuse(&self, stream: TcpStream) {
        if let Ok(permit) = self.refusals.clone().try_acquire_owned() {
            tokio::spawn(async move {
                let _ = timeout(Duration::from_secs(1), refuse(&stream)).await;
                drop(permit);
            });
        }
    }
}

/// Answers, and waits for the client to close, so that the answer is not lost with what it sent.
async fn refuse(stream: &TcpStream) -> io::Result<()> {
    stream.writable().await?;
    stream.try_write(refusal().as_bytes())?;
    let mut rest = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut rest) {
            Ok(0) => return Ok(()),
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
    }
}

impl Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => match self.places.clone().try_acquire_owned() {
                    Ok(place) => return (Connection::new(stream, place, self.idle), address),
                    Err(_) => self.refuse(stream),
                },
                // For example no file descriptor left: others must close first.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that times out.
pub(crate) struct Connection {
    stream: TcpStream,
    activity: Activity,
    idle: Duration,
    reading: Pin<Box<Sleep>>,
    writing: Pin<Box<Sleep>>,
    stalled: bool,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, idle: Duration) -> Self {
        let _ = stream.set_nodelay(true); // answers are only slower without it
        let reading = Box::pin(sleep(idle));
        let writing = Box::pin(sleep(idle));
        Self { stream, activity: Activity::default(), idle, reading, writing, stalled: false, _place: place }
    }

    /// After a write: the next request has the whole time again.
    fn wrote<T>(&mut self, result: Poll<io::Result<T>>, context: &mut Context) -> Poll<io::Result<T>> {
        let deadline = Instant::now() + self.idle;
        if result.is_ready() {
            self.stalled = false;
            self.reading.as_mut().reset(deadline);
            return result;
        }
        if !self.stalled {
            self.stalled = true;
            self.writing.as_mut().reset(deadline);
        }
        expired(&mut self.writing, context)
    }
}

fn expired<T>(timer: &mut Pin<Box<Sleep>>, context: &mut Context) -> Poll<io::Result<T>> {
    timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        buffer: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        if Pin::new(&mut self.stream).poll_read(context, buffer)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.activity.is_busy() {
            let deadline = Instant::now() + self.idle;
            self.reading.as_mut().reset(deadline);
        }
        expired(&mut self.reading, context)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context, data: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, data);
        self.wrote(result, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected<IncomingStream<'_, Door>> for Activity {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().activity.clone()
    }
}
