//! Which member is used: one at a time, until it fails.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::transport::Endpoint;
use tracing::{info, warn};

use crate::failure::Failure;
use crate::options::{EtcdOptions, User};
use crate::session::{Session, bad};
use sluice_catalog::store::StoreError;

/// The oldest etcd that splits long answers to watches.
const OLDEST: (u32, u32) = (3, 4);
/// The pause before the first repetition; doubled for each one after.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between repetitions.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Whether a call may be made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It may: it is tried again until its deadline.
    Freely,
    /// Only if it certainly was not begun.
    IfUnsent,
}

/// The members, and the one in use.
pub(crate) struct Members {
    endpoints: Vec<Endpoint>,
    user: Option<User>,
    connect_timeout: Duration,
    request_timeout: Duration,
    current: Mutex<Option<Arc<Session>>>,
    /// The etcd cluster of the first member that answered: another one has other revisions.
    cluster: OnceLock<u64>,
}

impl Members {
    pub(crate) fn new(endpoints: Vec<Endpoint>, options: &EtcdOptions) -> Self {
        Self {
            endpoints,
            user: options.user.clone(),
            connect_timeout: options.connect_timeout,
            request_timeout: options.request_timeout,
            current: Mutex::default(),
            cluster: OnceLock::new(),
        }
    }

    /// Makes a call, on one member after the other as far as `repeat` and the time allow. `call` gets the
    /// member and how long it may take.
    pub(crate) async fn call<R, F>(
        &self,
        repeat: Repeat,
        call: impl Fn(Arc<Session>, Instant) -> F,
    ) -> Result<R, CallError>
    where
        F: Future<Output = Result<R, Failure>>,
    {
        let deadline = Instant::now() + self.request_timeout;
        let mut pause = FIRST_PAUSE;
        let mut last = None;
        loop {
            let Ok(session) = timeout_at(deadline, self.session()).await else {
                // What was wrong before says more than that the time is up.
                return Err(last.unwrap_or_else(|| CallError {
                    endpoint: "every endpoint".to_owned(),
                    failure: Failure::Unsent("no answer in time".to_owned()),
                }));
            };
            let (endpoint, failure) = match session {
                Ok(session) => {
                    let until = match repeat {
                        Repeat::Freely => crate::session::half(deadline),
                        Repeat::IfUnsent => deadline,
                    };
                    match call(Arc::clone(&session), until).await {
                        Ok(result) => return Ok(result),
                        Err(failure) => {
                            if failure.breaks() && !session.is_broken() {
                                let endpoint = session.endpoint();
                                warn!(endpoint, ?failure, "etcd member passed over");
                                session.give_up();
                            }
                            (session.endpoint().to_owned(), failure)
                        }
                    }
                }
                Err(why) => ("every endpoint".to_owned(), Failure::Unsent(why)),
            };
            let again = match (&failure, repeat) {
                (Failure::Unsent(_), _) | (Failure::Undecided(_), Repeat::Freely) => true,
                (Failure::Undecided(_), Repeat::IfUnsent)
                | (Failure::Refused(..) | Failure::TooLarge, _) => false,
            };
            let next = Instant::now() + pause;
            if !again || next >= deadline {
                return Err(CallError { endpoint, failure });
            }
            last = Some(CallError { endpoint, failure });
            sleep_until(next).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The member in use, or the first of all that answers and knows a leader. Whoever else waits meanwhile gets
    /// the same.
    async fn session(&self) -> Result<Arc<Session>, String> {
        let mut current = self.current.lock().await;
        if let Some(session) = current.as_ref().filter(|session| !session.is_broken()) {
            return Ok(Arc::clone(session));
        }
        *current = None;
        let deadline = Instant::now() + self.connect_timeout;
        let mut tries: FuturesUnordered<_> =
            self.endpoints.iter().map(|endpoint| self.try_member(endpoint, deadline)).collect();
        let mut failures = Vec::new();
        while let Some(tried) = tries.next().await {
            match tried {
                Ok(session) => {
                    let session = Arc::new(session);
                    info!(endpoint = session.endpoint(), "etcd member in use");
                    *current = Some(Arc::clone(&session));
                    return Ok(session);
                }
                Err(why) => failures.push(why),
            }
        }
        Err(failures.join("; "))
    }

    async fn try_member(&self, endpoint: &Endpoint, deadline: Instant) -> Result<Session, String> {
        let tried = Session::connect(endpoint, self.user.as_ref(), deadline).await;
        let checked = tried.and_then(|(session, status)| {
            let cluster = status.header.ok_or_else(|| bad("no header"))?.cluster_id;
            if *self.cluster.get_or_init(|| cluster) != cluster {
                return Err(bad(
                    "the id of another etcd cluster than before: if etcd was restored from a backup, \
                     start this process anew",
                ));
            }
            if version(&status.version).is_none_or(|version| version < OLDEST) {
                return Err(bad("a version of etcd below 3.4"));
            }
            if status.leader == 0 {
                return Err(Failure::Unsent("it knows no leader".to_owned()));
            }
            Ok(session)
        });
        checked.map_err(|failure| {
            let url = endpoint.uri().to_string();
            format!("{}: {}", url.trim_end_matches('/'), failure.text())
        })
    }
}

/// A call that failed, and where.
#[derive(Debug)]
pub(crate) struct CallError {
    pub(crate) endpoint: String,
    pub(crate) failure: Failure,
}

impl From<CallError> for StoreError {
    fn from(CallError { endpoint, failure }: CallError) -> Self {
        failure.tell(&endpoint)
    }
}

/// Major and minor.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(version("3.4.23"), Some((3, 4)));
        assert!(version("3.10.0") > Some(OLDEST));
        assert!(version("3.3.27") < Some(OLDEST));
        assert_eq!(version("3"), None);
        assert_eq!(version(""), None);
    }
}
