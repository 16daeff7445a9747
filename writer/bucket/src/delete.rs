//! Deletions, in groups of what one request may name.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{Error, Result};

use crate::failure::Failure;
use crate::tries::{Shared, Tries};

/// S3 takes so many names in one request.
const GROUP: usize = 1000;

/// Deletes all of `locations`, and gives each one's fate in order. What a repeated request does not
/// find any more counts as deleted.
pub(crate) fn all(
    shared: Arc<Shared>,
    how: Tries,
    locations: BoxStream<'static, Result<Path>>,
) -> BoxStream<'static, Result<Path>> {
    let groups = locations.ready_chunks(GROUP);
    let deleted = groups.then(move |group| {
        let shared = Arc::clone(&shared);
        async move {
            let (mut names, mut fates) = (Vec::new(), Vec::new());
            for name in group {
                match name {
                    Ok(name) => names.push(name),
                    Err(error) => fates.push(Err(error)),
                }
            }
            if !names.is_empty() {
                fates.extend(group_of(&shared, how, names).await);
            }
            stream::iter(fates)
        }
    });
    deleted.flatten().boxed()
}

async fn group_of(shared: &Shared, how: Tries, names: Vec<Path>) -> Vec<Result<Path>> {
    let mut tries = 0;
    let delete = || {
        tries += 1;
        let wanted = names.clone();
        let inner = Arc::clone(&shared.inner);
        async move {
            let names = stream::iter(wanted.into_iter().map(Ok)).boxed();
            let mut fates: Vec<_> = inner.delete_stream(names).collect().await;
            // What may pass makes it worth asking for all of them again.
            let passing = |fate: &Result<Path>| {
                fate.as_ref().is_err_and(|error| Failure::of(error).may_pass())
            };
            match fates.iter().position(passing) {
                Some(at) => fates.swap_remove(at).map(|_| Vec::new()),
                None => Ok(fates),
            }
        }
    };
    match shared.run(how, delete).await {
        Err(error) => vec![Err(error)],
        Ok(fates) if tries == 1 || fates.len() != names.len() => fates,
        Ok(fates) => {
            let gone = |(fate, name): (Result<Path>, Path)| match fate {
                Err(Error::NotFound { .. }) => Ok(name),
                fate => fate,
            };
            fates.into_iter().zip(names).map(gone).collect()
        }
    }
}
