//! As much HTTP as is needed to ask a server of this machine: one request a connection, no TLS.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest answer that is taken.
const MAX_BYTES: u64 = 64 << 20;

/// One GET. Its status and the answer's body. The caller limits the time.
pub(crate) async fn get(url: &str) -> std::io::Result<(u16, String)> {
    let other = |reason: &str| std::io::Error::other(reason.to_owned());
    let rest = url.strip_prefix("http://").ok_or_else(|| other("write http://HOST:PORT/PATH"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut socket = TcpStream::connect(host).await?;
    // HTTP 1.0: the answer comes in one piece and ends with the connection.
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(MAX_BYTES).read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer).map_err(|_| other("the answer is no text"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| other("the answer is no HTTP"))?;
    let status = head.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| other("the answer has no status"))?, body.to_owned()))
}
