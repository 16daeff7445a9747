//! Keys in etcd, and ranges of them: read page by page, all at the revision of the first.

use bytes::Bytes;
use sluice_catalog::store::{Entry, LeaseId, Range, Revision};
use tracing::warn;

use crate::failure::Failure;
use crate::members::{CallError, Members, Repeat};
use crate::proto::etcdserverpb::{RangeRequest, RangeResponse};
use crate::proto::mvccpb::KeyValue;
use crate::session::{RANGE, bad, revision};

/// Entries of the first page; the others have as many as fit into [`PAGE_BYTES`].
const FIRST_PAGE: i64 = 512;
/// What a page should have: long enough to be worth a round trip.
const PAGE_BYTES: usize = 2 << 20;
/// The most entries of a page.
const LONGEST_PAGE: i64 = 8192;
/// How often a range is begun again because its revision was compacted meanwhile.
const RESTARTS: u32 = 3;

/// All keys that begin with `prefix`: from it, to the first key behind them. No prefix ends in 0xff, since
/// keys are text.
pub(crate) fn bounds(prefix: &str) -> (Bytes, Bytes) {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    (Bytes::copy_from_slice(prefix.as_bytes()), end.into())
}

/// An entry as etcd has it, under the store's own prefix. None if its key is not text: such a key is no
/// catalog's, and somebody else's mistake must not stop this one.
pub(crate) fn entry(prefix: &str, found: KeyValue) -> Result<Option<Entry>, Failure> {
    let Some(key) = key(prefix, &found.key)? else { return Ok(None) };
    let mod_revision = u64::try_from(found.mod_revision).map_err(|_| bad("a negative revision"))?;
    Ok(Some(Entry {
        key,
        value: found.value,
        mod_revision: Revision(mod_revision),
        lease: (found.lease != 0).then_some(LeaseId(found.lease)),
    }))
}

/// A key without the store's prefix; none if it is not text.
pub(crate) fn key(prefix: &str, found: &[u8]) -> Result<Option<String>, Failure> {
    let rest =
        found.strip_prefix(prefix.as_bytes()).ok_or_else(|| bad("a key nobody asked for"))?;
    match std::str::from_utf8(rest) {
        Ok(key) => Ok(Some(key.to_owned())),
        Err(_) => {
            warn!(key = ?Bytes::copy_from_slice(found), "a key in etcd is not text, and ignored");
            Ok(None)
        }
    }
}

/// Reads what is under `prefix` within the store's own `root`.
pub(crate) async fn read(members: &Members, root: &str, prefix: &str) -> Result<Range, CallError> {
    let mut restarts = 0;
    loop {
        match read_once(members, root, prefix).await {
            Err(error) if error.failure.is_compacted() && restarts < RESTARTS => restarts += 1,
            result => return result,
        }
    }
}

async fn read_once(members: &Members, root: &str, prefix: &str) -> Result<Range, CallError> {
    let (mut from, end) = bounds(&format!("{root}{prefix}"));
    let mut limit = FIRST_PAGE;
    let mut entries = Vec::new();
    let mut at = None;
    loop {
        let request = RangeRequest {
            key: from.clone(),
            range_end: end.clone(),
            limit,
            revision: at.unwrap_or(0),
            ..RangeRequest::default()
        };
        let asked = members.call(Repeat::Freely, |session, deadline| {
            let request = request.clone();
            async move {
                let answer: RangeResponse = session.unary(RANGE, request, deadline).await?;
                Page::read(root, answer)
            }
        });
        let page = match asked.await {
            Ok(page) => page,
            // A smaller page may fit.
            Err(CallError { failure: Failure::TooLarge, .. }) if limit > 1 => {
                limit = (limit / 8).max(1);
                continue;
            }
            Err(error) => return Err(error),
        };
        let first = *at.get_or_insert_with(|| i64::try_from(page.revision).unwrap_or(i64::MAX));
        entries.extend(page.entries);
        let Some(last) = page.last_of_more else {
            let revision = Revision(u64::try_from(first).unwrap_or_default());
            return Ok(Range { revision, entries });
        };
        from = [&last[..], &[0]].concat().into();
        limit = i64::try_from(PAGE_BYTES / page.mean_bytes).unwrap_or(1).clamp(1, LONGEST_PAGE);
    }
}

struct Page {
    revision: u64,
    entries: Vec<Entry>,
    /// The last key of the page, if there are more.
    last_of_more: Option<Bytes>,
    /// Of an entry; at least 1.
    mean_bytes: usize,
}

impl Page {
    fn read(root: &str, answer: RangeResponse) -> Result<Self, Failure> {
        let revision = revision(answer.header)?;
        let bytes: usize = answer.kvs.iter().map(|kv| kv.key.len() + kv.value.len() + 32).sum();
        let mean_bytes = (bytes / answer.kvs.len().max(1)).max(1);
        let last = answer.kvs.last().map(|kv| kv.key.clone());
        let last_of_more = match (answer.more, last) {
            (true, None) => return Err(bad("more, and nothing of it")),
            (true, last) => last,
            (false, _) => None,
        };
        let mut entries = Vec::with_capacity(answer.kvs.len());
        for kv in answer.kvs {
            entries.extend(entry(root, kv)?);
        }
        Ok(Self { revision, entries, last_of_more, mean_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::etcdserverpb::ResponseHeader;

    #[test]
    fn the_bounds_hold_a_prefix_and_no_more() {
        let (from, end) = bounds("/a/");
        assert_eq!((&from[..], &end[..]), (&b"/a/"[..], &b"/a0"[..]));
        let (from, end) = bounds("\u{10ffff}");
        assert!(from < end && !end.starts_with(&from));
    }

    #[test]
    fn bad_answers_are_errors() {
        let header = Some(ResponseHeader { revision: 7, ..ResponseHeader::default() });
        let kv = |key: &'static [u8]| KeyValue { key: key.into(), ..KeyValue::default() };
        let answer = |header, kvs, more| Page::read("/p/", RangeResponse { header, kvs, more });
        assert_eq!(answer(header, vec![kv(b"/p/a")], false).ok().unwrap().entries.len(), 1);
        assert!(answer(None, Vec::new(), false).is_err(), "no header");
        assert!(answer(header, Vec::new(), true).is_err(), "more of nothing");
        assert!(answer(header, vec![kv(b"/q/a")], false).is_err(), "another's key");
        let negative = KeyValue { mod_revision: -1, ..kv(b"/p/a") };
        assert!(answer(header, vec![negative], false).is_err());
        let back = Some(ResponseHeader { revision: -7, ..ResponseHeader::default() });
        assert!(answer(back, Vec::new(), false).is_err());
        let mixed = answer(header, vec![kv(b"/p/\xff"), kv(b"/p/b")], true).ok().unwrap();
        assert_eq!(mixed.entries.len(), 1, "what is no text is not ours");
        assert_eq!(mixed.last_of_more.as_deref(), Some(&b"/p/b"[..]));
    }
}
