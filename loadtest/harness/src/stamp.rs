//! What each record says of itself, so that whoever reads it can tell whose it is, which comes before it, and
//! whether it is whole.
//!
//! ```text
//!  0  magic "SLld"     │ 24  sequence u64   of this producer in this partition, from 0, no gap
//!  4  crc32c u32 of    │ 32  due u64        µs since the Unix epoch: when it was to be written
//!     all that follows │ 40  flags u32      bit 0: its transaction will be aborted; above it the key's
//!  8  run u64          │                    number + 1, or 0 without a key
//! 16  producer u32     │ 44  payload
//! 20  partition u32    │
//! ```
//! Little-endian. The layout is between the producers and consumers of one run: it may change at any time.

use crate::load::Load;
use crate::{keys, random::Random};

/// Bytes before the payload: the least that a record can have.
pub(crate) const BYTES: usize = 44;

const MAGIC: [u8; 4] = *b"SLld";
const CHECKED_FROM: usize = 8;
const DOOMED: u32 = 1;
/// Random bytes from which payloads are cut: far more than codecs look back.
const POOL_BYTES: usize = 4 << 20;

/// What a record says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) run: u64,
    pub(crate) producer: u32,
    pub(crate) partition: u32,
    /// Of this producer in this partition, from 0. Records of aborted transactions take the number of the
    /// next that is not.
    pub(crate) sequence: u64,
    /// µs since the Unix epoch.
    pub(crate) due_us: u64,
    /// Its transaction will be aborted: nobody who reads what is committed may see it.
    pub(crate) doomed: bool,
    pub(crate) key: Option<u32>,
}

/// Why a record is none that this harness wrote, or not as it wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It has no stamp.
    Unknown,
    /// Its checksum is wrong, or the key is not the one that it names.
    Damaged,
}

impl Stamp {
    /// Writes the stamp before the payload that is there.
    pub(crate) fn write(&self, value: &mut [u8]) {
        let key = self.key.map_or(0, |key| key + 1);
        let flags = key << 1 | if self.doomed { DOOMED } else { 0 };
        value[8..16].copy_from_slice(&self.run.to_le_bytes());
        value[16..20].copy_from_slice(&self.producer.to_le_bytes());
        value[20..24].copy_from_slice(&self.partition.to_le_bytes());
        value[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        value[32..40].copy_from_slice(&self.due_us.to_le_bytes());
        value[40..44].copy_from_slice(&flags.to_le_bytes());
        let crc = sluice_wire::crc32c(&value[CHECKED_FROM..]);
        value[..4].copy_from_slice(&MAGIC);
        value[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a record's stamp and checks key and value against it.
    pub(crate) fn read(key: Option<&[u8]>, value: &[u8]) -> Result<Self, Unreadable> {
        if value.len() < BYTES || value[..4] != MAGIC {
            return Err(Unreadable::Unknown);
        }
        if sluice_wire::crc32c(&value[CHECKED_FROM..]) != u32::from_le_bytes(field(value, 4)) {
            return Err(Unreadable::Damaged);
        }
        let flags = u32::from_le_bytes(field(value, 40));
        let stamp = Self {
            run: u64::from_le_bytes(field(value, 8)),
            producer: u32::from_le_bytes(field(value, 16)),
            partition: u32::from_le_bytes(field(value, 20)),
            sequence: u64::from_le_bytes(field(value, 24)),
            due_us: u64::from_le_bytes(field(value, 32)),
            doomed: flags & DOOMED != 0,
            key: (flags >> 1).checked_sub(1),
        };
        let text = stamp.key.map(keys::text);
        if key == text.as_ref().map(<[u8; keys::BYTES]>::as_slice) {
            Ok(stamp)
        } else {
            Err(Unreadable::Damaged)
        }
    }
}

/// The field at `at`, which the caller knows to be there.
fn field<const N: usize>(value: &[u8], at: usize) -> [u8; N] {
    *value[at..].first_chunk().expect("the length was checked")
}

/// Values of one size, made ahead as far as possible.
#[derive(Clone, Debug)]
pub(crate) struct Payloads {
    pool: std::sync::Arc<[u8]>,
    /// Random bytes of each value; the rest is zeros.
    random_bytes: usize,
    value: Vec<u8>,
}

impl Payloads {
    /// Values of `size` bytes, of which the share `compressibility` (of what comes after the stamp) is zeros.
    pub(crate) fn new(size: usize, compressibility: f64, seed: u64) -> Self {
        let random_bytes = ((size - BYTES) as f64 * (1.0 - compressibility)).round() as usize;
        let mut random = Random::new(seed, u64::MAX);
        let words = (POOL_BYTES + random_bytes).div_ceil(8);
        let pool = (0..words).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { pool, random_bytes, value: vec![0; size] }
    }

    /// The values of a load.
    pub(crate) fn of(load: &Load) -> Self {
        let records = &load.workload.records;
        Self::new(records.size.0 as usize, records.compressibility, load.seed)
    }

    /// The value of the next record.
    pub(crate) fn next(&mut self, stamp: &Stamp, random: &mut Random) -> &[u8] {
        let from = random.below(POOL_BYTES as u32) as usize;
        let payload = &self.pool[from..from + self.random_bytes];
        self.value[BYTES..BYTES + self.random_bytes].copy_from_slice(payload);
        stamp.write(&mut self.value);
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        run: 0x0123_4567_89ab_cdef,
        producer: 3,
        partition: 9,
        sequence: 1 << 40,
        due_us: 1_795_378_898_000_000,
        doomed: true,
        key: Some(77),
    };

    #[test]
    fn reads_what_it_wrote_with_and_without_a_key() {
        let mut payloads = Payloads::new(100, 0.0, 1);
        for stamp in
            [STAMP, Stamp { key: None, doomed: false, ..STAMP }, Stamp { key: Some(0), ..STAMP }]
        {
            let value = payloads.next(&stamp, &mut Random::new(2, 0)).to_vec();
            let key = stamp.key.map(keys::text);
            assert_eq!(Stamp::read(key.as_ref().map(|key| &key[..]), &value), Ok(stamp));
        }
    }

    #[test]
    fn any_change_is_seen() {
        let mut payloads = Payloads::new(64, 0.5, 1);
        let whole = payloads.next(&STAMP, &mut Random::new(2, 0)).to_vec();
        let key = keys::text(77);
        for place in 0..whole.len() {
            let mut value = whole.clone();
            value[place] ^= 1;
            let read = Stamp::read(Some(&key), &value);
            let expected = if place < 4 { Unreadable::Unknown } else { Unreadable::Damaged };
            assert_eq!(read, Err(expected), "byte {place}");
        }
        assert_eq!(Stamp::read(Some(&keys::text(78)), &whole), Err(Unreadable::Damaged));
        assert_eq!(Stamp::read(None, &whole), Err(Unreadable::Damaged));
        assert_eq!(Stamp::read(Some(&key), &whole[..43]), Err(Unreadable::Unknown));
    }

    #[test]
    fn compressibility_is_the_share_of_zeros() {
        let mut random = Random::new(3, 0);
        for (compressibility, zeros) in [(0.0, 0..40), (0.5, 490..530), (1.0, 1000..1001)] {
            let mut payloads = Payloads::new(1000 + BYTES, compressibility, 1);
            let value = payloads.next(&STAMP, &mut random);
            let found = value[BYTES..].iter().filter(|byte| **byte == 0).count();
            assert!(zeros.contains(&found), "{compressibility}: {found}");
        }
    }
}
