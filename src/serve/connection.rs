//! Connections with limits: their number, the time a request's head may take, the time a client may leave an
//! answer untouched.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::error::ApiError;

/// Connections that are being refused because there are too many.
const REFUSALS: usize = 32;

/// Silence after which a client that was answered before all it sent was read counts as done with sending.
const LINGER: Duration = Duration::from_secs(2);

/// The whole answer to a connection beyond the limit.
fn refusal() -> String {
    let body = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections")
        .code("connection_limit")
        .body()
        .to_string();
    let head = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-type: application/json";
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A connection as its requests see it. While any is being answered, silence of the client is not a fault.
#[derive(Clone)]
pub(super) struct Activity {
    answering: Arc<AtomicUsize>,
    stream: Arc<TcpStream>,
    idle: Duration,
}

/// A request that is being answered, until dropped.
pub(super) struct Answering(Arc<AtomicUsize>);

impl Activity {
    pub(super) fn begin(&self) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self.answering.clone())
    }

    fn is_busy(&self) -> bool {
        self.answering.load(Ordering::Relaxed) > 0
    }

    /// Ends when the client has gone. One that has only closed its own side looks like one that has gone, so
    /// it is waited for as long as for one that does not read.
    pub(super) async fn gone(&self) {
        match self.stream.peek(&mut [0]).await {
            Ok(0) => sleep(self.idle).await,
            Ok(_) => std::future::pending().await, // it sends its next request
            Err(_) => {}
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A listener that accepts a limited number of connections.
pub(crate) struct LimitedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    idle: Duration,
    stopped: watch::Receiver<bool>,
}

impl LimitedListener {
    pub(super) fn new(
        listener: TcpListener,
        connections: usize,
        idle: Duration,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            stopped,
            listener,
            places: Arc::new(Semaphore::new(connections)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            idle,
        }
    }

    /// The next connection.
    pub(super) async fn accept(&mut self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match self.places.clone().try_acquire_owned() {
                    Ok(place) => return Connection::new(stream, place, self.idle, self.stopped.clone()),
                    Err(_) => self.refuse(stream),
                },
                // For example no file descriptor left: others must close first.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
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

/// A connection that times out.
pub(super) struct Connection {
    stream: Arc<TcpStream>,
    activity: Activity,
    idle: Duration,
    reading: Pin<Box<Sleep>>,
    writing: Pin<Box<Sleep>>,
    stalled: bool,
    /// Whether our side is closed, and what the client still sends is thrown away.
    lingers: bool,
    stopped: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        idle: Duration,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let _ = stream.set_nodelay(true); // answers are only slower without it
        let stream = Arc::new(stream);
        let activity = Activity { answering: Arc::default(), stream: stream.clone(), idle };
        Self {
            stream,
            activity,
            idle,
            reading: Box::pin(sleep(idle)),
            writing: Box::pin(sleep(idle)),
            stalled: false,
            lingers: false,
            stopped,
            _place: place,
        }
    }

    /// This connection as its requests see it.
    pub(super) fn activity(&self) -> Activity {
        self.activity.clone()
    }

    fn poll_receive(&self, context: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read(buffer.initialize_unfilled()) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(|n| buffer.advance(n))),
            }
        }
    }

    fn poll_send(&self, context: &mut Context, data: &[IoSlice]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write_vectored(data) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Throws away what still comes, until the client closes its side, falls silent, or has sent for too
    /// long. A socket that is closed with anything unread takes the answer back from a client that is still
    /// sending.
    fn linger(&mut self, context: &mut Context) -> Poll<()> {
        let mut rest = [0; 16 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut rest);
            match self.poll_receive(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.reading.as_mut().reset(Instant::now() + LINGER);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if *self.stopped.borrow() => return Poll::Ready(()),
                Poll::Pending => return self.reading.as_mut().poll(context),
            }
            if self.writing.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
        }
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
        if let Poll::Ready(read) = self.poll_receive(context, buffer) {
            return Poll::Ready(read);
        }
        if self.activity.is_busy() {
            let deadline = Instant::now() + self.idle;
            self.reading.as_mut().reset(deadline);
        }
        expired(&mut self.reading, context)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        data: &[IoSlice],
    ) -> Poll<io::Result<usize>> {
        let result = self.poll_send(context, data);
        self.wrote(result, context)
    }

    /// So that answers are sent from where they lie, and not from a copy that nobody counts.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        if !self.lingers {
            SockRef::from(&*self.stream).shutdown(Shutdown::Write)?;
            let now = Instant::now();
            let idle = self.idle;
            self.lingers = true;
            self.reading.as_mut().reset(now + LINGER.min(idle));
            self.writing.as_mut().reset(now + idle);
        }
        self.linger(context).map(Ok)
    }
}
