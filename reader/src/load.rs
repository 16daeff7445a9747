//! Getting chunks into the cache: single-flight, neighbours by one request, checked, damaged ones once more.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, join_all};
use quick_cache::sync::DefaultLifecycle;
use quick_cache::{DefaultHashBuilder, sync::PlaceholderGuard};
use sluice_format::segment::{Block, BlockEntry, Extent, decode_index, split_block};
use sluice_format::{FormatError, TransactionSection};

use crate::aborted::Aborted;
use crate::cache::{ByBytes, Cached};
use crate::gather::{LARGE_BYTES, MAX_GET_BYTES};
use crate::plan::{Chunk, chunks};
use crate::read::{ReadError, Reader};

/// The right to load a chunk, for which others then wait.
type Guard<'a> = PlaceholderGuard<
    'a,
    Chunk,
    Cached,
    ByBytes,
    DefaultHashBuilder,
    DefaultLifecycle<Chunk, Cached>,
>;

/// Neighbouring chunks that are ours to load.
type Run<'a> = Vec<(Chunk, Guard<'a>)>;

/// What lies behind an extent's blocks.
pub(crate) struct Parts {
    pub(crate) index: Arc<[BlockEntry]>,
    /// None if the extent has no section.
    pub(crate) section: Option<Arc<Aborted>>,
}

/// Under which an extent's section is cached.
pub(crate) fn section_chunk(extent: &Extent) -> Chunk {
    let range = extent.section_range();
    Chunk { segment: extent.segment, position: range.start, len: range.end - range.start }
}

impl Reader {
    /// An extent's index; none for an extent of one block. `with_data` says that all of the extent is
    /// wanted: the request for the index brings its blocks into the cache, too.
    pub(crate) async fn index(
        &self,
        extent: &Extent,
        with_data: bool,
    ) -> Result<Option<Arc<[BlockEntry]>>, ReadError> {
        if extent.blocks <= 1 {
            // What is wanted with it comes by the same request, if its blocks are not here.
            let len = u64::from(extent.data_len);
            let data = Chunk { segment: extent.segment, position: extent.position, len };
            if len > 0 && extent.section_len > 0 && self.cache.peek(&data).is_none() {
                self.section(extent).await?;
            }
            return Ok(None);
        }
        let range = extent.index_range();
        let chunk =
            Chunk { segment: extent.segment, position: range.start, len: range.end - range.start };
        let found = match self.cache.get(&chunk) {
            Some(found) => {
                self.metrics.hits.inc();
                found
            }
            None => {
                let load = async {
                    let parts = self.fetch_parts(extent, with_data).await?;
                    if let Some(section) = parts.section {
                        self.cache.insert(section_chunk(extent), Cached::Aborted(section));
                    }
                    Ok::<_, ReadError>(Cached::Index(parts.index))
                };
                self.cache.get_or_insert_async(&chunk, load).await?
            }
        };
        match found {
            Cached::Index(index) => Ok(Some(index)),
            Cached::Blocks(_) | Cached::Aborted(_) => Err(self.foreign(chunk)),
        }
    }

    /// Reads an extent's index and section, which lie side by side, and its blocks if they are wanted, by
    /// one request. The blocks are in the cache before this returns.
    pub(crate) async fn fetch_parts(
        &self,
        extent: &Extent,
        with_data: bool,
    ) -> Result<Parts, ReadError> {
        let (index, section) = (extent.index_range(), extent.section_range());
        let position = if with_data { extent.position } else { index.start };
        let all = Chunk { segment: extent.segment, position, len: section.end - position };
        let decode = |bytes: &mut Bytes| {
            let cut = |bytes: &mut Bytes, len: u64| match len <= bytes.len() as u64 {
                true => Ok(bytes.split_to(len as usize)),
                false => Err(FormatError::Truncated { what: "segment" }),
            };
            let mut data = cut(bytes, index.start - position)?;
            let blocks = decode_index(&cut(bytes, index.end - index.start)?)?;
            let section = match section.is_empty() {
                true => None,
                false => Some(TransactionSection::decode(bytes)?.into()),
            };
            let mut loaded = Vec::new();
            if with_data {
                let known = (extent.blocks > 1).then_some(&*blocks);
                for chunk in chunks(extent, known, extent.base_offset, u64::MAX).0 {
                    loaded.push((chunk, split_blocks(of_its_own(&cut(&mut data, chunk.len)?))?));
                }
            }
            Ok((Parts { index: blocks.into(), section: section.map(Arc::new) }, loaded))
        };
        let (parts, loaded) = self.fetch(&[all], decode).await?.pop().ok_or(ReadError::NotHere)?;
        for (chunk, blocks) in loaded {
            self.cache.insert(chunk, blocks);
        }
        Ok(parts)
    }

    /// One chunk's blocks, verified.
    pub(crate) async fn blocks(&self, chunk: Chunk) -> Result<Arc<[Block]>, ReadError> {
        let mut blocks = self.load(vec![chunk]).await?;
        blocks.pop().ok_or(ReadError::NotHere)
    }

    /// The blocks of each of `wanted`, verified. What nobody has or loads yet is ours to load.
    ///
    /// Nothing waits here for others while it keeps others waiting: runs are loaded beside waiting.
    pub(crate) async fn load(&self, wanted: Vec<Chunk>) -> Result<Vec<Arc<[Block]>>, ReadError> {
        let mut work = Vec::new();
        let mut run: Run<'_> = Vec::new();
        for chunk in wanted {
            let guard = self.cache.get_value_or_guard_async(&chunk).now_or_never();
            let goes_on = matches!(guard, Some(Err(_))) && continues(&run, chunk);
            if !goes_on && !run.is_empty() {
                work.push(Either::Left(self.load_run(std::mem::take(&mut run))));
            }
            match guard {
                Some(Err(guard)) => run.push((chunk, guard)),
                Some(Ok(found)) => {
                    self.metrics.hits.inc();
                    let found = self.only_blocks(chunk, found).map(|blocks| vec![blocks]);
                    work.push(Either::Right(Either::Left(std::future::ready(found))));
                }
                None => work.push(Either::Right(Either::Right(self.wait_for(chunk)))),
            }
        }
        if !run.is_empty() {
            work.push(Either::Left(self.load_run(run)));
        }
        let mut out = Vec::new();
        for loaded in join_all(work).await {
            out.extend(loaded?);
        }
        Ok(out)
    }

    /// A chunk that somebody else loads; ours, if they fail.
    async fn wait_for(&self, chunk: Chunk) -> Result<Vec<Arc<[Block]>>, ReadError> {
        let load = async {
            let mut loaded = self.fetch(&[chunk], decode_blocks(chunk)).await?;
            loaded.pop().ok_or(ReadError::NotHere)
        };
        let found = self.cache.get_or_insert_async(&chunk, load).await?;
        self.only_blocks(chunk, found).map(|blocks| vec![blocks])
    }

    async fn load_run(&self, run: Run<'_>) -> Result<Vec<Arc<[Block]>>, ReadError> {
        let chunks: Vec<Chunk> = run.iter().map(|(chunk, _)| *chunk).collect();
        let mut lens = chunks.iter().map(|chunk| chunk.len);
        let alone = chunks.len() == 1 && chunks[0].len >= LARGE_BYTES;
        let decode = move |bytes: &mut Bytes| {
            let len = lens.next().unwrap_or(0).min(bytes.len() as u64);
            let chunk = bytes.split_to(len as usize);
            split_blocks(if alone { chunk } else { of_its_own(&chunk) })
        };
        let loaded = self.fetch(&chunks, decode).await?;
        let mut out = Vec::with_capacity(loaded.len());
        for ((chunk, guard), found) in run.into_iter().zip(loaded) {
            // Too large for the cache, it is used all the same.
            drop(guard.insert(found.clone()));
            out.push(self.only_blocks(chunk, found)?);
        }
        Ok(out)
    }

    fn only_blocks(&self, chunk: Chunk, found: Cached) -> Result<Arc<[Block]>, ReadError> {
        match found {
            Cached::Blocks(blocks) => Ok(blocks),
            Cached::Index(_) | Cached::Aborted(_) => Err(self.foreign(chunk)),
        }
    }

    pub(crate) fn foreign(&self, chunk: Chunk) -> ReadError {
        let error =
            FormatError::Invalid { what: "segment", why: "an index lies where data should" };
        ReadError::Corrupt { segment: self.keys.segment(chunk.segment), error }
    }

    /// Reads neighbouring chunks by one request, and decodes each. Bytes that are damaged may have been
    /// damaged on their way: they are asked for once more.
    pub(crate) async fn fetch<T>(
        &self,
        chunks: &[Chunk],
        decode: impl FnMut(&mut Bytes) -> Result<T, FormatError> + Clone,
    ) -> Result<Vec<T>, ReadError> {
        match self.fetch_once(chunks, decode.clone()).await {
            Err(ReadError::Corrupt { segment, error }) => {
                self.metrics.rereads.inc();
                tracing::warn!(segment, %error, "the bucket gave damaged bytes; reading again");
                let again = self.fetch_once(chunks, decode).await;
                if let Err(ReadError::Corrupt { segment, error }) = &again {
                    tracing::error!(segment, %error, "the bucket gave damaged bytes twice");
                }
                again
            }
            done => done,
        }
    }

    async fn fetch_once<T>(
        &self,
        chunks: &[Chunk],
        mut decode: impl FnMut(&mut Bytes) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, ReadError> {
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
            return Ok(Vec::new());
        };
        let key = self.keys.segment(first.segment);
        let range = first.position..last.position + last.len;
        let wanted = range.end - range.start;
        let mut bytes = match self.gather.get(first.segment, range).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.metrics.errors.inc();
                return Err(match *error {
                    // Retention has removed it since the plan was made.
                    object_store::Error::NotFound { .. } => ReadError::NotHere,
                    _ => ReadError::Unavailable(error),
                });
            }
        };
        let corrupt = |error| {
            self.metrics.errors.inc();
            ReadError::Corrupt { segment: key.clone(), error }
        };
        if bytes.len() as u64 != wanted {
            return Err(corrupt(FormatError::Truncated { what: "segment" }));
        }
        let mut out = Vec::with_capacity(chunks.len());
        for _ in chunks {
            out.push(decode(&mut bytes).map_err(corrupt)?);
            // Others' requests come between the checksums of a large read.
            tokio::task::yield_now().await;
        }
        Ok(out)
    }
}

/// Whether `chunk` can be read by the same request as `run`.
fn continues(run: &Run<'_>, chunk: Chunk) -> bool {
    let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else {
        return true;
    };
    last.segment == chunk.segment
        && last.position + last.len == chunk.position
        && chunk.position + chunk.len - first.position <= MAX_GET_BYTES
}

fn decode_blocks(chunk: Chunk) -> impl FnMut(&mut Bytes) -> Result<Cached, FormatError> + Clone {
    move |bytes| {
        let len = chunk.len.min(bytes.len() as u64) as usize;
        split_blocks(of_its_own(&bytes.split_to(len)))
    }
}

/// A copy: the cache counts the bytes of a chunk, so a chunk must not keep the memory of all that came
/// with it.
fn of_its_own(chunk: &[u8]) -> Bytes {
    Bytes::copy_from_slice(chunk)
}

fn split_blocks(mut bytes: Bytes) -> Result<Cached, FormatError> {
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        blocks.push(split_block(&mut bytes)?);
    }
    Ok(Cached::Blocks(blocks.into()))
}
