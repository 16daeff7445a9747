//! Listings: streams of pages.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{Error, ObjectMeta, ObjectStore, Result};

use crate::metrics::Op;
use crate::tries::{Shared, Tries};

/// S3 gives so many names in one answer.
const PAGE: usize = 1000;

/// A listing. Until its first name has come it is begun anew when it fails; later its reader has to:
/// stores differ in their order, so that there is no place to go on from.
pub(crate) fn all(
    shared: Arc<Shared>,
    how: Tries,
    list: impl Fn(&Arc<dyn ObjectStore>) -> BoxStream<'static, Result<ObjectMeta>>
    + Send
    + Sync
    + 'static,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let begin = async move {
        let first = || {
            // Some stores' listings may not be asked again after their end.
            let mut listing = list(&shared.inner).fuse();
            async move {
                let first = listing.try_next().await?;
                Ok((first, listing))
            }
        };
        let (first, rest) = shared.run(how, first).await?;
        let metrics = shared.metrics.clone();
        let mut given = 1;
        let rest = rest.inspect_ok(move |_| {
            if given % PAGE == 0 {
                metrics.request(Op::List);
            }
            given += 1;
        });
        Ok::<_, Error>(stream::iter(first.map(Ok)).chain(rest))
    };
    stream::once(begin).try_flatten().boxed()
}
