//! The log: recovery at open, durable appends, and starting over when it has outgrown the state.
//!
//! `len` is always the length up to which the file is known to be good and durable. After a failed
//! append the bytes past it are cut off before anything else is written, so that a frame that was not
//! acknowledged can never be followed by one that was.

use std::io;
use std::path::Path;

use sluice_model::Entropy;
use tracing::{info, warn};

use super::OpenError;
use super::disk::{Disk, ReplaceError};
use super::frame::{self, Damage, HEADER_LEN, Header, Record};
use super::state::State;

/// The log is not rewritten before it has grown by this much.
const REWRITE_MIN: u64 = 1 << 20;
/// Frames of a snapshot are cut at about this size.
const SNAPSHOT_FRAME_RECORDS: usize = 1024;

pub(super) struct Log {
    disk: Box<dyn Disk>,
    header: Header,
    len: u64,
    /// Whether there may be bytes past `len`.
    ragged: bool,
    /// The length at which it is rewritten.
    rewrite_at: u64,
}

impl Log {
    /// Reads the state back, or begins an empty one. A torn last frame is cut off.
    pub(super) fn open(
        mut disk: Box<dyn Disk>,
        path: &Path,
        entropy: &dyn Entropy,
    ) -> Result<(Self, State), OpenError> {
        let io = |doing| {
            let path = path.to_owned();
            move |source| OpenError::Io { doing, path, source }
        };
        let Some(bytes) = disk.read().map_err(io("read"))? else {
            let state = State::default();
            let mut log = Self::unopened(disk);
            log.replace(&state, entropy.random_u64()).map_err(|error| match error {
                ReplaceError::Old(source) | ReplaceError::New(source) => io("create")(source),
            })?;
            return Ok((log, state));
        };
        let recovered = recover(&bytes).map_err(refused(path))?;
        let len = recovered.len as u64;
        let mut log = Self { header: recovered.header, len, ..Self::unopened(disk) };
        if recovered.len < bytes.len() {
            let dropped = bytes.len() - recovered.len;
            warn!(path = %path.display(), dropped, "torn last write of the catalog dropped");
            log.disk.truncate(len).map_err(io("cut the torn end of"))?;
        }
        log.plan_rewrite();
        Ok((log, recovered.state))
    }

    fn unopened(disk: Box<dyn Disk>) -> Self {
        let header = Header { nonce: 0, base_len: 0 };
        Self { disk, header, len: 0, ragged: false, rewrite_at: u64::MAX }
    }

    pub(super) fn blocks(&self) -> bool {
        self.disk.blocks()
    }

    /// Makes one frame durable. After an error it is as if the call had not been made.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if self.ragged {
            self.disk.truncate(self.len)?;
            self.ragged = false;
        }
        let mut bytes = Vec::new();
        frame::encode_frame(self.header.nonce, records, &mut bytes);
        match self.disk.append(self.len, &bytes) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.ragged = self.disk.truncate(self.len).is_err();
                Err(error)
            }
        }
    }

    /// Whether [`Log::rewrite`] is due.
    pub(super) fn outgrown(&self) -> bool {
        self.len >= self.rewrite_at
    }

    /// Starts the log over from the state, which must be what the log leads to. A failure is logged
    /// and leaves the log as good as it was.
    pub(super) fn rewrite(&mut self, state: &State, nonce: u64) {
        let before = self.len;
        match self.replace(state, nonce) {
            Ok(()) => info!(before, after = self.len, "catalog log rewritten"),
            Err(ReplaceError::Old(error)) => {
                warn!(%error, "catalog log not rewritten; trying again when it has grown more");
                self.rewrite_at = self.len.saturating_add(REWRITE_MIN);
            }
            // In use already; appends fail until its name is durable.
            Err(ReplaceError::New(error)) => warn!(%error, "catalog directory not synced"),
        }
    }

    fn replace(&mut self, state: &State, nonce: u64) -> Result<(), ReplaceError> {
        let (header, bytes) = snapshot(state, nonce);
        let result = self.disk.replace(&bytes);
        if !matches!(result, Err(ReplaceError::Old(_))) {
            self.header = header;
            self.len = header.base_len;
            self.ragged = false;
            self.plan_rewrite();
        }
        result
    }

    fn plan_rewrite(&mut self) {
        let base = self.header.base_len;
        self.rewrite_at = base.saturating_add((2 * base).max(REWRITE_MIN));
    }
}

/// A whole file that leads to the state.
fn snapshot(state: &State, nonce: u64) -> (Header, Vec<u8>) {
    let mut bytes = vec![0; HEADER_LEN];
    let mut records = state.snapshot().peekable();
    while records.peek().is_some() {
        let some: Vec<Record> = records.by_ref().take(SNAPSHOT_FRAME_RECORDS).collect();
        frame::encode_frame(nonce, &some, &mut bytes);
    }
    let header = Header { nonce, base_len: bytes.len() as u64 };
    bytes[..HEADER_LEN].copy_from_slice(&header.encode());
    (header, bytes)
}

/// What a file leads to, and how many bytes of a torn write end it.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<(State, usize), OpenError> {
    let recovered = recover(bytes).map_err(refused(path))?;
    Ok((recovered.state, bytes.len() - recovered.len))
}

fn refused(path: &Path) -> impl FnOnce((usize, Damage)) -> OpenError {
    let path = path.to_owned();
    move |(offset, damage)| match damage {
        Damage::Version(version) => OpenError::NewerVersion { path, version },
        Damage::Bytes(reason) => OpenError::Corrupt { path, offset, reason },
    }
}

struct Recovered {
    header: Header,
    state: State,
    /// Up to where the file is good.
    len: usize,
}

/// Reads a file; what is wrong with it, and where.
fn recover(bytes: &[u8]) -> Result<Recovered, (usize, Damage)> {
    let header = Header::decode(bytes).map_err(|damage| (0, damage))?;
    let mut state = None;
    let mut at = HEADER_LEN;
    while at < bytes.len() {
        let Some((records, length)) = frame::decode_frame(header.nonce, &bytes[at..]) else {
            if (at as u64) < header.base_len || frame::any_frame(header.nonce, &bytes[at + 1..]) {
                return Err((at, Damage::Bytes("a frame is damaged that others follow")));
            }
            break;
        };
        for record in records.map_err(|damage| (at, damage))? {
            step(&mut state, record).map_err(|reason| (at, Damage::Bytes(reason)))?;
        }
        at += length;
    }
    if (at as u64) < header.base_len {
        return Err((at, Damage::Bytes("the file is cut short")));
    }
    let mut state = state.ok_or((at, Damage::Bytes("there is no base record")))?;
    state.forget_history();
    Ok(Recovered { header, state, len: at })
}

fn step(state: &mut Option<State>, record: Record) -> Result<(), &'static str> {
    match (state.as_mut(), record) {
        (None, Record::Base { revision, last_lease }) => {
            *state = Some(State::base(revision, last_lease));
            Ok(())
        }
        (None, _) => Err("the first record is not a base record"),
        (Some(state), record) => state.apply(record),
    }
}
