//! A way to etcd that can be cut: what goes through it stops, and nobody is told.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(super) struct Proxy {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = watch::Sender::new(false);
        let told = cut.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(client, target, told.clone()));
            }
        });
        Self { address, cut, task }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing passes any more; connections stay open and silent, new ones too.
    pub(super) fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// New connections pass. Those that were cut are closed.
    pub(super) fn heal(&self) {
        self.cut.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut client: TcpStream, target: SocketAddr, mut cut: watch::Receiver<bool>) {
    let passing = async {
        let Ok(mut server) = TcpStream::connect(target).await else { return };
        // However it ends, both sides are closed.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    };
    tokio::select! {
        biased;
        _ = cut.wait_for(|cut| *cut) => {}
        () = passing => return,
    }
    let _ = cut.wait_for(|cut| !*cut).await;
}
