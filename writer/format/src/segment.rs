//! Segments: immutable objects that hold extents of many streams, sorted by stream and offset.
//!
//! ```text
//! segment:  header | extent | extent | ... | directory | trailer
//! header    32   magic "SLSEGMNT", version u16, zero u16, volume u32, epoch u32, sequence u64, crc u32
//! extent         block | block | ... | index | section (see `transactions.rs`; may be absent)
//! block     40   magic "BLK1", length u32 of the payload, base offset i64, end offset i64,
//!                max timestamp i64, batches u32, crc u32 over the 36 bytes before it and the payload
//!                payload: whole Kafka batches, back to back
//! index          magic "IDX1", count u32, count * entry, crc u32 over all before it
//!   entry   36   base offset i64, end offset i64, max timestamp i64, position u64, length u32 (with header)
//! directory      count u32, count * extent entry (see `Extent::encode`), crc u32
//! trailer   24   directory position u64, directory length u64, magic "SLSEGEND"
//! ```
//!
//! Positions count from the object's first byte. A reader that has the manifest's [`Extent`] needs the
//! index alone (one small read) to find an offset or a timestamp, and no index where the extent is
//! one block. Header, directory and trailer are for tools and repair: with them the segment explains
//! itself without a manifest.

use bytes::{BufMut, Bytes, BytesMut};

use crate::cursor::Cursor;
use crate::transactions::TransactionSection;
use crate::{FormatError, StreamKey, crc32c};

const MAGIC: &[u8; 8] = b"SLSEGMNT";
const TRAILER_MAGIC: &[u8; 8] = b"SLSEGEND";
/// 2 added sections of extents.
const VERSION: u16 = 2;
/// Length of a segment's header.
pub const HEADER_LEN: usize = 32;
/// Length of a block's header.
pub const BLOCK_HEADER_LEN: usize = 40;
const BLOCK_MAGIC: &[u8; 4] = b"BLK1";
const INDEX_MAGIC: &[u8; 4] = b"IDX1";
const INDEX_ENTRY_LEN: usize = 36;
/// Length of an index that has this many blocks.
const fn index_len(blocks: usize) -> usize {
    8 + blocks * INDEX_ENTRY_LEN + 4
}
const EXTENT_LEN: usize = 20 + 16 + 8 * 3 + 8 + 4 + 4 + 4 + 4;
/// Length of the trailer that ends a segment.
pub const TRAILER_LEN: usize = 24;

/// A block is closed when it holds this much; a larger batch makes a larger block.
pub const BLOCK_TARGET_BYTES: usize = 256 * 1024;

/// The identity of a segment (or of another object that an owner of a volume writes once).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The volume whose owner wrote it.
    pub volume: u32,
    /// The volume epoch of that owner.
    pub epoch: u32,
    /// Counted up by that owner from 0.
    pub sequence: u64,
}

impl SegmentId {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.volume);
        out.put_u32_le(self.epoch);
        out.put_u64_le(self.sequence);
    }

    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, FormatError> {
        Ok(Self { volume: cursor.u32()?, epoch: cursor.u32()?, sequence: cursor.u64()? })
    }
}

/// One stream's range in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The segment.
    pub segment: SegmentId,
    /// The first offset.
    pub base_offset: i64,
    /// One past the last offset.
    pub end_offset: i64,
    /// The largest timestamp of its records, ms.
    pub max_timestamp: i64,
    /// Where its first block begins.
    pub position: u64,
    /// Bytes of all its blocks.
    pub data_len: u32,
    /// How many blocks; the index follows them at `position + data_len`. None where key compaction has
    /// removed every batch.
    pub blocks: u32,
    /// The leader epoch of its last batch.
    pub leader_epoch: u32,
    /// Bytes of its [`TransactionSection`], which follows the index; 0 if there is none.
    pub section_len: u32,
}

impl Extent {
    /// Where the index lies: position and length.
    pub fn index_range(&self) -> std::ops::Range<u64> {
        let start = self.position + u64::from(self.data_len);
        start..start + index_len(self.blocks as usize) as u64
    }

    /// Where the transaction section lies; empty if there is none.
    pub fn section_range(&self) -> std::ops::Range<u64> {
        let start = self.index_range().end;
        start..start + u64::from(self.section_len)
    }

    /// Where the blocks lie.
    pub fn data_range(&self) -> std::ops::Range<u64> {
        self.position..self.position + u64::from(self.data_len)
    }

    /// stream 20, segment 16, base i64, end i64, max timestamp i64, position u64, data length u32,
    /// blocks u32, leader epoch u32, section length u32.
    pub(crate) fn encode(&self, stream: StreamKey, out: &mut BytesMut) {
        out.put_slice(&stream.topic);
        out.put_u32_le(stream.partition);
        self.segment.encode(out);
        out.put_i64_le(self.base_offset);
        out.put_i64_le(self.end_offset);
        out.put_i64_le(self.max_timestamp);
        out.put_u64_le(self.position);
        out.put_u32_le(self.data_len);
        out.put_u32_le(self.blocks);
        out.put_u32_le(self.leader_epoch);
        out.put_u32_le(self.section_len);
    }

    pub(crate) const ENCODED_LEN: usize = EXTENT_LEN;

    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<(StreamKey, Self), FormatError> {
        let stream = StreamKey { topic: cursor.array()?, partition: cursor.u32()? };
        let extent = Self {
            segment: SegmentId::decode(cursor)?,
            base_offset: cursor.i64()?,
            end_offset: cursor.i64()?,
            max_timestamp: cursor.i64()?,
            position: cursor.u64()?,
            data_len: cursor.u32()?,
            blocks: cursor.u32()?,
            leader_epoch: cursor.u32()?,
            section_len: cursor.u32()?,
        };
        if extent.base_offset < 0 || extent.end_offset <= extent.base_offset {
            return Err(FormatError::Invalid { what: "extent", why: "its offset range is empty" });
        }
        // Key compaction may leave nothing of an extent but its range of offsets.
        let least = extent.blocks as usize * BLOCK_HEADER_LEN;
        if (extent.data_len as usize) < least || (extent.blocks == 0 && extent.data_len > 0) {
            return Err(FormatError::Invalid { what: "extent", why: "its blocks do not fit it" });
        }
        Ok((stream, extent))
    }
}

/// Contiguous batches of one stream, to be put into a segment.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Offset of the first record.
    pub base_offset: i64,
    /// One past the last.
    pub end_offset: i64,
    /// Largest timestamp, ms.
    pub max_timestamp: i64,
    /// How many batches.
    pub batches: u32,
    /// The leader epoch under which they were written.
    pub leader_epoch: u32,
    /// Whole batches, back to back.
    pub bytes: Bytes,
}

/// Builds a segment as a chain of buffers; record bytes are not copied.
#[derive(Debug)]
pub struct SegmentBuilder {
    id: SegmentId,
    parts: Vec<Bytes>,
    len: u64,
    extents: Vec<(StreamKey, Extent)>,
}

/// A finished segment.
#[derive(Clone, Debug)]
pub struct BuiltSegment {
    /// Its identity.
    pub id: SegmentId,
    /// The object's bytes, in order.
    pub parts: Vec<Bytes>,
    /// Their total length.
    pub len: u64,
    /// What lies where.
    pub extents: Vec<(StreamKey, Extent)>,
}

impl SegmentBuilder {
    /// An empty segment.
    pub fn new(id: SegmentId) -> Self {
        let mut header = BytesMut::with_capacity(HEADER_LEN);
        header.put_slice(MAGIC);
        header.put_u16_le(VERSION);
        header.put_u16_le(0);
        id.encode(&mut header);
        header.put_u32_le(crc32c(&header));
        Self { id, len: header.len() as u64, parts: vec![header.freeze()], extents: Vec::new() }
    }

    /// Adds a stream's pieces, which must be contiguous and in order. Streams must come in ascending
    /// order. One piece without bytes makes an extent without blocks: a range of offsets from which key
    /// compaction has removed every batch.
    ///
    /// # Panics
    /// If they do not: such a segment would lie about what it holds.
    pub fn push_extent(&mut self, stream: StreamKey, pieces: &[Piece]) {
        self.push_extent_with(stream, pieces, &TransactionSection::default());
    }

    /// As [`SegmentBuilder::push_extent`], with what is to be said of its transactions and producers.
    ///
    /// # Panics
    /// As that does.
    pub fn push_extent_with(
        &mut self,
        stream: StreamKey,
        pieces: &[Piece],
        section: &TransactionSection,
    ) {
        assert!(self.extents.last().is_none_or(|(last, _)| *last < stream), "streams ascend");
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            panic!("an extent has at least one piece");
        };
        assert!(
            pieces.windows(2).all(|pair| pair[0].end_offset == pair[1].base_offset),
            "pieces are contiguous"
        );
        let position = self.len;
        let mut index = BytesMut::new();
        let mut blocks = 0u32;
        let empty = pieces.iter().all(|piece| piece.bytes.is_empty());
        let mut rest = if empty { &[] } else { pieces };
        while !rest.is_empty() {
            let mut size = 0;
            let mut count = 0;
            while count < rest.len() && (count == 0 || size < BLOCK_TARGET_BYTES) {
                size += rest[count].bytes.len();
                count += 1;
            }
            let (block, after) = rest.split_at(count);
            self.push_block(block, &mut index);
            blocks += 1;
            rest = after;
        }
        let data_len = u32::try_from(self.len - position).expect("an extent is below 4 GiB");
        let mut framed = BytesMut::with_capacity(index_len(blocks as usize));
        framed.put_slice(INDEX_MAGIC);
        framed.put_u32_le(blocks);
        framed.put_slice(&index);
        framed.put_u32_le(crc32c(&framed));
        self.push(framed.freeze());
        let section = section.encode().freeze();
        let section_len = section.len() as u32;
        if !section.is_empty() {
            self.push(section);
        }
        self.extents.push((
            stream,
            Extent {
                segment: self.id,
                base_offset: first.base_offset,
                end_offset: last.end_offset,
                max_timestamp: pieces.iter().map(|p| p.max_timestamp).max().unwrap_or(-1),
                position,
                data_len,
                blocks,
                leader_epoch: last.leader_epoch,
                section_len,
            },
        ));
    }

    fn push_block(&mut self, pieces: &[Piece], index: &mut BytesMut) {
        let payload_len: usize = pieces.iter().map(|p| p.bytes.len()).sum();
        let base = pieces[0].base_offset;
        let end = pieces[pieces.len() - 1].end_offset;
        let max_timestamp = pieces.iter().map(|p| p.max_timestamp).max().unwrap_or(-1);
        index.put_i64_le(base);
        index.put_i64_le(end);
        index.put_i64_le(max_timestamp);
        index.put_u64_le(self.len);
        index.put_u32_le((BLOCK_HEADER_LEN + payload_len) as u32);

        let mut header = BytesMut::with_capacity(BLOCK_HEADER_LEN);
        header.put_slice(BLOCK_MAGIC);
        header.put_u32_le(payload_len as u32);
        header.put_i64_le(base);
        header.put_i64_le(end);
        header.put_i64_le(max_timestamp);
        header.put_u32_le(pieces.iter().map(|p| p.batches).sum());
        let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        crc.update(&header);
        for piece in pieces {
            crc.update(&piece.bytes);
        }
        header.put_u32_le(crc.finalize() as u32);
        self.push(header.freeze());
        for piece in pieces {
            self.push(piece.bytes.clone());
        }
    }

    fn push(&mut self, part: Bytes) {
        self.len += part.len() as u64;
        self.parts.push(part);
    }

    /// Closes the segment.
    pub fn finish(mut self) -> BuiltSegment {
        let mut directory =
            BytesMut::with_capacity(8 + self.extents.len() * EXTENT_LEN + TRAILER_LEN);
        directory.put_u32_le(self.extents.len() as u32);
        for (stream, extent) in &self.extents {
            extent.encode(*stream, &mut directory);
        }
        directory.put_u32_le(crc32c(&directory));
        let directory_len = directory.len() as u64;
        directory.put_u64_le(self.len);
        directory.put_u64_le(directory_len);
        directory.put_slice(TRAILER_MAGIC);
        self.push(directory.freeze());
        BuiltSegment { id: self.id, parts: self.parts, len: self.len, extents: self.extents }
    }
}

/// A block as the index describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// The first offset.
    pub base_offset: i64,
    /// One past the last.
    pub end_offset: i64,
    /// The largest timestamp, ms.
    pub max_timestamp: i64,
    /// Where the block's header begins.
    pub position: u64,
    /// Bytes with the header.
    pub len: u32,
}

/// Reads an extent's index (the bytes of [`Extent::index_range`]).
pub fn decode_index(bytes: &[u8]) -> Result<Vec<BlockEntry>, FormatError> {
    const WHAT: &str = "block index";
    let body = checked(bytes, WHAT)?;
    let mut cursor = Cursor::new(body, WHAT);
    if cursor.array::<4>()? != *INDEX_MAGIC {
        return Err(FormatError::Magic { what: WHAT });
    }
    let count = cursor.count(INDEX_ENTRY_LEN)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(BlockEntry {
            base_offset: cursor.i64()?,
            end_offset: cursor.i64()?,
            max_timestamp: cursor.i64()?,
            position: cursor.u64()?,
            len: cursor.u32()?,
        });
    }
    cursor.finish()?;
    Ok(entries)
}

/// A block whose checksum was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first offset.
    pub base_offset: i64,
    /// One past the last.
    pub end_offset: i64,
    /// The largest timestamp, ms.
    pub max_timestamp: i64,
    /// Whole batches, back to back.
    pub payload: Bytes,
}

/// What a block says of itself, which is not verified before the block is: enough to walk from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHead {
    /// The first offset.
    pub base_offset: i64,
    /// One past the last.
    pub end_offset: i64,
    /// Bytes of the block, with its header.
    pub len: u64,
}

impl BlockHead {
    /// Reads it from the first [`BLOCK_HEADER_LEN`] bytes of a block.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "block";
        let mut cursor = Cursor::new(bytes, WHAT);
        if cursor.array::<4>()? != *BLOCK_MAGIC {
            return Err(FormatError::Magic { what: WHAT });
        }
        let payload_len = u64::from(cursor.u32()?);
        let (base_offset, end_offset) = (cursor.i64()?, cursor.i64()?);
        Ok(Self { base_offset, end_offset, len: BLOCK_HEADER_LEN as u64 + payload_len })
    }
}

/// Takes the first block off `bytes`, verified; the payload shares their memory.
pub fn split_block(bytes: &mut Bytes) -> Result<Block, FormatError> {
    const WHAT: &str = "block";
    let mut cursor = Cursor::new(bytes, WHAT);
    if cursor.array::<4>()? != *BLOCK_MAGIC {
        return Err(FormatError::Magic { what: WHAT });
    }
    let payload_len = cursor.u32()? as usize;
    let base_offset = cursor.i64()?;
    let end_offset = cursor.i64()?;
    let max_timestamp = cursor.i64()?;
    cursor.u32()?;
    let stored = cursor.u32()?;
    let payload = cursor.take(payload_len)?;
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    crc.update(&bytes[..BLOCK_HEADER_LEN - 4]);
    crc.update(payload);
    if crc.finalize() as u32 != stored {
        return Err(FormatError::Checksum { what: WHAT });
    }
    let mut whole = bytes.split_to(BLOCK_HEADER_LEN + payload_len);
    let payload = whole.split_off(BLOCK_HEADER_LEN);
    Ok(Block { base_offset, end_offset, max_timestamp, payload })
}

/// Reads a whole segment's directory; `bytes` is the entire object.
pub fn decode_directory(bytes: &[u8]) -> Result<Vec<(StreamKey, Extent)>, FormatError> {
    decode_header(bytes)?;
    let directory = directory_range(bytes, bytes.len() as u64)?;
    decode_extents(&bytes[directory.start as usize..directory.end as usize])
}

/// Reads a segment's header, the object's first [`HEADER_LEN`] bytes.
pub fn decode_header(bytes: &[u8]) -> Result<SegmentId, FormatError> {
    const WHAT: &str = "segment";
    let mut head = Cursor::new(bytes, WHAT);
    if head.array::<8>()? != *MAGIC {
        return Err(FormatError::Magic { what: WHAT });
    }
    let version = head.u16()?;
    if version != VERSION {
        return Err(FormatError::Version { what: WHAT, found: version, newest: VERSION });
    }
    let header = bytes.get(..HEADER_LEN).ok_or(FormatError::Truncated { what: WHAT })?;
    let mut cursor = Cursor::new(&checked(header, "segment header")?[12..], WHAT);
    SegmentId::decode(&mut cursor)
}

/// Where the directory lies in a segment of `len` bytes that ends with `tail` (at least
/// [`TRAILER_LEN`] bytes).
pub fn directory_range(tail: &[u8], len: u64) -> Result<std::ops::Range<u64>, FormatError> {
    const WHAT: &str = "segment trailer";
    let trailer_at =
        tail.len().checked_sub(TRAILER_LEN).ok_or(FormatError::Truncated { what: WHAT })?;
    let mut trailer = Cursor::new(&tail[trailer_at..], WHAT);
    let (position, directory_len) = (trailer.u64()?, trailer.u64()?);
    if trailer.array::<8>()? != *TRAILER_MAGIC {
        return Err(FormatError::Magic { what: WHAT });
    }
    let end = position.checked_add(directory_len);
    if end.is_none() || end != len.checked_sub(TRAILER_LEN as u64) {
        return Err(FormatError::Truncated { what: "segment directory" });
    }
    Ok(position..position + directory_len)
}

/// Reads a directory: the bytes of [`directory_range`].
pub fn decode_extents(directory: &[u8]) -> Result<Vec<(StreamKey, Extent)>, FormatError> {
    const WHAT: &str = "segment directory";
    let mut cursor = Cursor::new(checked(directory, WHAT)?, WHAT);
    let count = cursor.count(EXTENT_LEN)?;
    let extents = (0..count).map(|_| Extent::decode(&mut cursor)).collect::<Result<_, _>>()?;
    cursor.finish()?;
    Ok(extents)
}

/// Strips and verifies the CRC32C that ends `bytes`.
pub(crate) fn checked<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a [u8], FormatError> {
    let split = bytes.len().checked_sub(4).ok_or(FormatError::Truncated { what })?;
    let (body, crc) = bytes.split_at(split);
    if crc != crc32c(body).to_le_bytes() {
        return Err(FormatError::Checksum { what });
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
