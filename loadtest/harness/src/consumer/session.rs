//! A fetch session (KIP-227): the server remembers which partitions are fetched from where, so that a request
//! names only what has changed. A server that gives no session gets all of it each time. Pure.

use sluice_wire::ErrorCode;

/// What a server remembers of one consumer.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// 0: none.
    id: i32,
    epoch: i32,
}

impl Session {
    /// Session id and epoch of the next request.
    pub(super) fn next(&self) -> (i32, i32) {
        (self.id, self.epoch)
    }

    /// Whether the next request names all partitions.
    pub(super) fn is_full(&self) -> bool {
        self.id == 0
    }

    /// Takes the id in an answer without an error.
    pub(super) fn answered(&mut self, id: i32) {
        self.id = id;
        // From 1 to i32::MAX and around; 0 asks for a new session.
        self.epoch = match (id, self.epoch) {
            (0, _) => 0,
            (_, i32::MAX) => 1,
            (_, epoch) => epoch + 1,
        };
    }

    /// The connection or the session is lost: the next request asks for a new one.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether an error in an answer only says that the session is lost.
    pub(super) fn is_lost(error: ErrorCode) -> bool {
        matches!(
            error,
            ErrorCode::FetchSessionIdNotFound
                | ErrorCode::InvalidFetchSessionEpoch
                | ErrorCode::FetchSessionTopicIdError
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_go_up_and_around_and_begin_anew() {
        let mut session = Session::default();
        assert_eq!((session.next(), session.is_full()), ((0, 0), true));
        session.answered(0);
        assert_eq!((session.next(), session.is_full()), ((0, 0), true));
        session.answered(9);
        assert_eq!((session.next(), session.is_full()), ((9, 1), false));
        session.answered(9);
        assert_eq!(session.next(), (9, 2));
        session.epoch = i32::MAX;
        session.answered(9);
        assert_eq!(session.next(), (9, 1));
        session.reset();
        assert_eq!((session.next(), session.is_full()), ((0, 0), true));
    }
}
