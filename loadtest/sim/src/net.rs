//! Requests and answers between hosts, over turmoil's UDP.
//!
//! A datagram carries the number of a message that waits in a post box: what the network does to
//! datagrams (delay, loss, reordering, partition, hold) happens to messages, and nothing has to be
//! encoded. An answer that does not come in time is a failure of which the caller knows nothing: the
//! request may have been lost, the answer may have been lost, or either may still be on its way.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use turmoil::net::UdpSocket;

/// Messages on their way.
#[derive(Debug)]
struct PostBox<T> {
    next: u64,
    held: BTreeMap<u64, T>,
}

impl<T> PostBox<T> {
    fn new() -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { next: 0, held: BTreeMap::new() }))
    }

    fn put(&mut self, message: T) -> [u8; 8] {
        self.next += 1;
        self.held.insert(self.next, message);
        self.next.to_le_bytes()
    }
}

/// A kind of service: what it is asked and what it answers. Clones are the same.
#[derive(Debug)]
pub(crate) struct Service<Q, A> {
    port: u16,
    asked: Arc<Mutex<PostBox<Q>>>,
    answered: Arc<Mutex<PostBox<A>>>,
}

impl<Q, A> Clone for Service<Q, A> {
    fn clone(&self) -> Self {
        let (asked, answered) = (Arc::clone(&self.asked), Arc::clone(&self.answered));
        Self { port: self.port, asked, answered }
    }
}

/// The way back to one caller.
#[derive(Debug)]
pub(crate) struct Caller<A> {
    socket: Arc<UdpSocket>,
    from: SocketAddr,
    answered: Arc<Mutex<PostBox<A>>>,
}

impl<A> Caller<A> {
    /// Sends one answer; there may be several. Whether it arrives nobody knows.
    pub(crate) async fn answer(&self, answer: A) {
        let letter = self.answered.lock().put(answer);
        // The network of a dying host refuses: the answer is lost then.
        let _ = self.socket.send_to(&letter, self.from).await;
    }
}

/// A request that was sent.
#[derive(Debug)]
pub(crate) struct Exchange<A> {
    socket: UdpSocket,
    answered: Arc<Mutex<PostBox<A>>>,
}

impl<A> Exchange<A> {
    /// The next answer, if one comes in time.
    pub(crate) async fn next(&self, within: Duration) -> Option<A> {
        let receive = async {
            let mut letter = [0; 8];
            loop {
                let (len, _) = self.socket.recv_from(&mut letter).await.ok()?;
                let number = u64::from_le_bytes(letter);
                // A letter comes once at most; what is not there was taken by no one else.
                if let (8, Some(answer)) = (len, self.answered.lock().held.remove(&number)) {
                    return Some(answer);
                }
            }
        };
        tokio::time::timeout(within, receive).await.ok().flatten()
    }
}

impl<Q: Send + 'static, A: Send + 'static> Service<Q, A> {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, asked: PostBox::new(), answered: PostBox::new() }
    }

    /// Sends a request to `host`.
    pub(crate) async fn ask(&self, host: &str, question: Q) -> io::Result<Exchange<A>> {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).await?;
        let letter = self.asked.lock().put(question);
        socket.send_to(&letter, (host, self.port)).await?;
        Ok(Exchange { socket, answered: Arc::clone(&self.answered) })
    }

    /// Sends a request and waits for its one answer.
    pub(crate) async fn call(&self, host: &str, question: Q, within: Duration) -> Option<A> {
        self.ask(host, question).await.ok()?.next(within).await
    }

    /// Answers requests on this host until it crashes, each in a task of its own.
    pub(crate) async fn serve<F, W>(&self, handler: F) -> io::Result<()>
    where
        F: Fn(Q, Caller<A>) -> W,
        W: Future<Output = ()> + Send + 'static,
    {
        let socket = Arc::new(UdpSocket::bind(("0.0.0.0", self.port)).await?);
        let mut letter = [0; 8];
        loop {
            let (_, from) = socket.recv_from(&mut letter).await?;
            let question = self.asked.lock().held.remove(&u64::from_le_bytes(letter));
            let answered = Arc::clone(&self.answered);
            let caller = Caller { socket: Arc::clone(&socket), from, answered };
            if let Some(question) = question {
                tokio::spawn(handler(question, caller));
            }
        }
    }
}
