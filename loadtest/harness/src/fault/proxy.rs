//! A TCP proxy between a server and its bucket, which can be cut. It knows nothing of what passes.
//!
//! What always holds: it listens at the same address for all its life; dropping it ends it and its
//! connections.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// Between two tries to listen again.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// How a bucket is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// Connections break, and new ones are refused, as where nobody listens.
    #[default]
    Refuse,
    /// Connections stay and are taken, and nothing passes, as where packets are lost.
    Hang,
    /// Connections break, and new ones are taken and break at once.
    Cut,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    cut: watch::Sender<Option<Cut>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Listens, for what is at `upstream` (`host:port`). The port is none that the system gives to clients: they
    /// must not take it while it is refused.
    ///
    /// # Errors
    /// When it cannot be listened on.
    pub async fn start(upstream: String, listen: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let cut = watch::Sender::new(None);
        let serving = tokio::spawn(serve(listener, address, upstream, cut.subscribe()));
        Ok(Self { address, cut, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the connection, or lets it pass again.
    pub fn set(&self, cut: Option<Cut>) {
        self.cut.send_replace(cut);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    upstream: String,
    mut cut: watch::Receiver<Option<Cut>>,
) {
    let mut listener = Some(listener);
    // Dropped with this task, and their connections with them.
    let mut connections = JoinSet::new();
    loop {
        let now = *cut.borrow_and_update();
        if now == Some(Cut::Refuse) {
            listener = None;
        } else if listener.is_none() {
            match TcpListener::bind(address).await {
                Ok(again) => listener = Some(again),
                // Whoever has the port for a moment.
                Err(_) => {
                    sleep(RETRY_AFTER).await;
                    continue;
                }
            }
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = cut.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
            accepted = accepted => if let Ok((client, _)) = accepted && now != Some(Cut::Cut) {
                connections.spawn(pass(client, upstream.clone(), cut.clone()));
            }
        }
    }
}

/// Passes bytes both ways until one side ends, or the connection is cut.
async fn pass(mut client: TcpStream, upstream: String, mut cut: watch::Receiver<Option<Cut>>) {
    let Ok(mut server) = TcpStream::connect(&upstream).await else { return };
    // Latency is the server's and the bucket's, not ours.
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let copy = copy_bidirectional(&mut client, &mut server);
    tokio::pin!(copy);
    loop {
        let now = *cut.borrow_and_update();
        match now {
            Some(Cut::Refuse | Cut::Cut) => return,
            // What is on its way waits, and goes on later.
            Some(Cut::Hang) => {
                if cut.changed().await.is_err() {
                    return;
                }
            }
            None => tokio::select! {
                _ = &mut copy => return,
                changed = cut.changed() => if changed.is_err() { return },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A server that gives back what it gets.
    async fn echo() -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listens");
        let address = listener.local_addr().expect("its address").to_string();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn say(socket: &mut TcpStream, word: &[u8; 4]) -> std::io::Result<[u8; 4]> {
        socket.write_all(word).await?;
        let mut answer = [0; 4];
        timeout(SOON, socket.read_exact(&mut answer)).await.expect("in time")?;
        Ok(answer)
    }

    async fn connect(proxy: &Proxy) -> std::io::Result<TcpStream> {
        TcpStream::connect(proxy.address()).await
    }

    #[tokio::test]
    async fn a_cut_is_as_it_is_called_and_passes_over() {
        let proxy = Proxy::start(echo().await, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .expect("listens");
        let mut old = connect(&proxy).await.expect("connects");
        assert_eq!(&say(&mut old, b"one.").await.expect("an answer"), b"one.");

        proxy.set(Some(Cut::Hang));
        let mut hanging = connect(&proxy).await.expect("connects");
        hanging.write_all(b"two.").await.expect("sent");
        let mut answer = [0; 4];
        let came = timeout(Duration::from_millis(100), hanging.read_exact(&mut answer)).await;
        assert!(came.is_err(), "nothing passes");
        proxy.set(None);
        timeout(SOON, hanging.read_exact(&mut answer)).await.expect("in time").expect("it goes on");
        assert_eq!(&answer, b"two.");
        assert_eq!(&say(&mut old, b"tre.").await.expect("an answer"), b"tre.");

        proxy.set(Some(Cut::Refuse));
        assert_eq!(timeout(SOON, old.read(&mut answer)).await.expect("in time").unwrap_or(0), 0);
        // The listener is gone when the connections are, or a moment later.
        let refused = async {
            while connect(&proxy).await.is_ok() {
                sleep(RETRY_AFTER).await;
            }
        };
        timeout(SOON, refused).await.expect("refused in the end");

        proxy.set(Some(Cut::Cut));
        let taken = async {
            loop {
                match connect(&proxy).await {
                    Ok(taken) => return taken,
                    Err(_) => sleep(RETRY_AFTER).await,
                }
            }
        };
        let mut taken = timeout(SOON, taken).await.expect("it listens again");
        assert_eq!(timeout(SOON, taken.read(&mut answer)).await.expect("in time").unwrap_or(0), 0);

        proxy.set(None);
        let again = async {
            loop {
                let Ok(mut socket) = connect(&proxy).await else { continue };
                if let Ok(answer) = say(&mut socket, b"for.").await {
                    return answer;
                }
            }
        };
        assert_eq!(&timeout(SOON, again).await.expect("it passes again"), b"for.");
    }
}
