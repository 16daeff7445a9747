//! What OTLP says about metrics (opentelemetry-proto v1, `metrics.proto`), read from the bytes without
//! copying. Only numbers are looked at: gauges and sums are all that Kafka's clients push. Attributes are
//! skipped: there is no end to them.
//!
//! The depth is that of the schema, so no input makes it deeper; unknown fields are skipped, as protobuf
//! wants it.

/// What the bytes lack to be metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not OTLP metrics")]
pub(super) struct Malformed;

/// What a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What there is now; also a sum that may go down.
    Level,
    /// What has been added since the last push.
    Increase,
    /// What has been added since the client started: of no use without the value before.
    Total,
    /// A histogram or summary.
    Distribution,
}

/// One number of one metric; 0 for distributions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point<'a> {
    pub(super) metric: &'a str,
    pub(super) meaning: Meaning,
    pub(super) value: f64,
}

/// Gives every number of a `MetricsData` to `each`, and stops when that says so.
///
/// # Errors
/// When something is no protobuf of this schema; what came before has been given.
pub(super) fn points<'a>(
    data: &'a [u8],
    mut each: impl FnMut(Point<'a>) -> bool,
) -> Result<(), Malformed> {
    // MetricsData.resource_metrics, ResourceMetrics.scope_metrics, ScopeMetrics.metrics.
    for resource in messages(data, 1) {
        for scope in messages(resource?, 2) {
            for metric in messages(scope?, 2) {
                if !one_metric(metric?, &mut each)? {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn one_metric<'a>(
    data: &'a [u8],
    each: &mut impl FnMut(Point<'a>) -> bool,
) -> Result<bool, Malformed> {
    let mut name = "";
    let mut numbers = None;
    for field in Fields(data) {
        match field? {
            (1, Value::Bytes(text)) => name = std::str::from_utf8(text).map_err(|_| Malformed)?,
            (5, Value::Bytes(gauge)) => numbers = Some((Meaning::Level, gauge)),
            (7, Value::Bytes(sum)) => numbers = Some((meaning_of_sum(sum)?, sum)),
            (9..=11, Value::Bytes(other)) => numbers = Some((Meaning::Distribution, other)),
            _ => {}
        }
    }
    let Some((meaning, holder)) = numbers else { return Ok(true) };
    // All of them have their points in field 1.
    for point in messages(holder, 1) {
        let value = match meaning {
            Meaning::Distribution => Some(0.0),
            _ => number(point?)?,
        };
        let Some(value) = value else { continue };
        if !each(Point { metric: name, meaning, value }) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `Sum`: aggregation_temporality is field 2 (1 delta, 2 cumulative), is_monotonic field 3.
fn meaning_of_sum(data: &[u8]) -> Result<Meaning, Malformed> {
    let (mut delta, mut monotonic) = (false, false);
    for field in Fields(data) {
        match field? {
            (2, Value::Number(temporality)) => delta = temporality == 1,
            (3, Value::Number(flag)) => monotonic = flag != 0,
            _ => {}
        }
    }
    Ok(match (delta, monotonic) {
        (true, true) => Meaning::Increase,
        (false, true) => Meaning::Total,
        (_, false) => Meaning::Level,
    })
}

/// `NumberDataPoint`: as_double is field 4, as_int field 6. A point may say that it has no value.
fn number(data: &[u8]) -> Result<Option<f64>, Malformed> {
    let mut value = None;
    for field in Fields(data) {
        match field? {
            (4, Value::Fixed64(bits)) => value = Some(f64::from_bits(bits)),
            (6, Value::Fixed64(bits)) => value = Some(bits.cast_signed() as f64),
            _ => {}
        }
    }
    Ok(value)
}

/// The messages in one field, which may be repeated.
fn messages(data: &[u8], wanted: u64) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    Fields(data).filter_map(move |field| match field {
        Ok((number, Value::Bytes(bytes))) if number == wanted => Some(Ok(bytes)),
        Ok(_) => None,
        Err(malformed) => Some(Err(malformed)),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of one message. Ends after the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(*self.take(8)?.first_chunk()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            // Groups are not in the schema, and nothing else exists.
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// Metrics as a client writes them, for tests.
#[cfg(test)]
pub(crate) mod write {
    /// A field that is a message, text or bytes.
    pub(crate) fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(content);
        out
    }

    fn data(metric: &[u8]) -> Vec<u8> {
        bytes(1, &[bytes(1, b"resource"), bytes(2, &bytes(2, metric))].concat())
    }

    /// One gauge of a double.
    pub(crate) fn gauge(name: &str, value: f64) -> Vec<u8> {
        let point = [&[4 << 3 | 1][..], &value.to_le_bytes()].concat();
        data(&[bytes(1, name.as_bytes()), bytes(5, &bytes(1, &point))].concat())
    }

    /// One monotonic sum of an integer; `temporality` 1 is delta.
    pub(crate) fn sum(name: &str, value: i64, temporality: u8) -> Vec<u8> {
        let point = [&[6 << 3 | 1][..], &value.to_le_bytes()].concat();
        let sum = [&bytes(1, &point)[..], &[2 << 3, temporality, 3 << 3, 1]].concat();
        data(&[bytes(1, name.as_bytes()), bytes(7, &sum)].concat())
    }

    /// One histogram without content.
    pub(crate) fn histogram(name: &str) -> Vec<u8> {
        data(&[bytes(1, name.as_bytes()), bytes(9, &bytes(1, b""))].concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(data: &[u8]) -> Result<Vec<Point<'_>>, Malformed> {
        let mut all = Vec::new();
        points(data, |point| {
            all.push(point);
            true
        })?;
        Ok(all)
    }

    #[test]
    fn numbers_are_found_with_what_they_mean() {
        let data = [
            write::gauge("a.level", 1.5),
            write::sum("an.increase", -3, 1),
            write::sum("a.total", 9, 2),
            write::histogram("a.distribution"),
        ]
        .concat();
        let found = all(&data).unwrap();
        let point = |metric, meaning, value| Point { metric, meaning, value };
        assert_eq!(
            found,
            [
                point("a.level", Meaning::Level, 1.5),
                point("an.increase", Meaning::Increase, -3.0),
                point("a.total", Meaning::Total, 9.0),
                point("a.distribution", Meaning::Distribution, 0.0),
            ]
        );
        let mut count = 0;
        points(&data, |_| {
            count += 1;
            count < 2
        })
        .unwrap();
        assert_eq!(count, 2);
    }

    #[test]
    fn what_is_cut_off_is_malformed() {
        let data = write::gauge("a.level", 1.5);
        for end in 1..data.len() {
            assert!(all(&data[..end]).is_err(), "{end}");
        }
        assert_eq!(all(&[]), Ok(Vec::new()));
        // A group, a varint that does not end, a length beyond the end.
        for data in [&[1 << 3 | 3][..], &[0xff; 11], &[1 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0x7f]] {
            assert_eq!(all(data), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut count = 0;
            let _ = points(&data, |_| { count += 1; true });
            prop_assert!(count <= data.len());
        }
    }
}
