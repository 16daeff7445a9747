//! The whole device, byte for byte, as a host sees it, and raw writes to it: past the volume code and past
//! the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

pub(crate) const BLOCK: usize = 4096;
const CHUNK: usize = 1 << 20;

/// Memory at an address that direct I/O takes.
pub(crate) struct Aligned {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn new(len: usize) -> Self {
        let memory = vec![0; len + BLOCK];
        let from = memory.as_ptr().align_offset(BLOCK);
        Self { memory, from, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.from..self.from + self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}

/// Opens a device as any process of a host might: without the volume's lock.
pub(crate) fn open(path: &Path) -> io::Result<Arc<File>> {
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits() as i32;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    Ok(Arc::new(file))
}

/// Reads the whole device.
pub(crate) async fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = open(path)?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut image = Vec::new();
        let mut chunk = Aligned::new(CHUNK);
        loop {
            let read = file.read_at(chunk.bytes_mut(), image.len() as u64)?;
            if read == 0 {
                return io::Result::Ok(image);
            }
            image.extend_from_slice(&chunk.bytes()[..read]);
        }
    });
    Ok(reading.await??)
}

/// Writes one block that begins with `text`.
pub(crate) async fn write(file: &Arc<File>, offset: u64, text: &[u8]) -> io::Result<()> {
    let file = Arc::clone(file);
    let mut block = Aligned::new(BLOCK);
    block.bytes_mut()[..text.len()].copy_from_slice(text);
    let writing = tokio::task::spawn_blocking(move || file.write_all_at(block.bytes(), offset));
    writing.await.map_err(io::Error::other)?
}

/// The offsets of the blocks in which two images differ.
pub(crate) fn difference(before: &[u8], after: &[u8]) -> Vec<u64> {
    let blocks = before.chunks(BLOCK).zip(after.chunks(BLOCK)).enumerate();
    let changed = blocks.filter(|(_, (before, after))| before != after);
    changed.map(|(at, _)| (at * BLOCK) as u64).collect()
}
