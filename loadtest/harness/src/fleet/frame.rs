//! Frames between coordinator and agents.
//!
//! ```text
//! 0  length u32, big-endian, of what follows │ 4  a message, JSON
//! ```
//! A length over the limit of the moment is refused before memory is taken for it. Whoever has not shown the token yet
//! gets the smaller limit.

use std::io::{Error, ErrorKind};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest first frame.
pub(super) const FIRST_BYTES: usize = 4 << 10;
/// The largest frame: ends of 200,000 partitions, or all latencies of a second.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// A frame that is read takes memory in steps, so that a length alone costs nothing.
const STEP_BYTES: usize = 64 << 10;

/// Reads a message. Not safe to drop midway.
pub(super) async fn read<M: DeserializeOwned>(
    socket: &mut (impl AsyncRead + Unpin),
    most_bytes: usize,
) -> Result<M, Error> {
    let len = socket.read_u32().await? as usize;
    if len > most_bytes {
        return Err(invalid(format!("a frame of {len} bytes, at most {most_bytes} are allowed")));
    }
    let mut text = Vec::new();
    while text.len() < len {
        let from = text.len();
        text.resize(len.min(from + STEP_BYTES), 0);
        socket.read_exact(&mut text[from..]).await?;
    }
    serde_json::from_slice(&text).map_err(|error| invalid(format!("not a message: {error}")))
}

/// Writes a message. Not safe to drop midway.
pub(super) async fn write(
    socket: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> Result<(), Error> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(Error::from)?;
    let len = frame.len() - 4;
    let len = u32::try_from(len).ok().filter(|len| *len as usize <= MAX_BYTES);
    let len = len.ok_or_else(|| invalid("a message that is too large".to_owned()))?;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    socket.write_all(&frame).await
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::message::{ToAgent, ToCoordinator};

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn messages_come_back_and_too_long_ones_are_refused() {
        block_on(async {
            let mut bytes = Vec::new();
            write(&mut bytes, &ToAgent::Time { asked_us: 1, us: 2 }).await.expect("written");
            write(&mut bytes, &ToAgent::End).await.expect("written");
            let mut from = &bytes[..];
            let first = read::<ToAgent>(&mut from, 64).await.expect("a message");
            assert!(matches!(first, ToAgent::Time { asked_us: 1, us: 2 }));
            assert!(matches!(read(&mut from, 64).await, Ok(ToAgent::End)));
            assert!(read::<ToAgent>(&mut from, 64).await.is_err(), "nothing is left");
            let refused = read::<ToAgent>(&mut &bytes[..], 8).await.expect_err("too long");
            assert_eq!(refused.kind(), ErrorKind::InvalidData);
            // 4 GiB are promised and none are there.
            assert!(read::<ToAgent>(&mut &[255; 9][..], MAX_BYTES).await.is_err());
        });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frame = (bytes.len() as u32).to_be_bytes().to_vec();
            frame.extend(&bytes);
            block_on(async {
                drop(read::<ToAgent>(&mut &bytes[..], FIRST_BYTES).await);
                drop(read::<ToAgent>(&mut &frame[..], FIRST_BYTES).await);
                drop(read::<ToCoordinator>(&mut &frame[..], FIRST_BYTES).await);
            });
        }
    }
}
