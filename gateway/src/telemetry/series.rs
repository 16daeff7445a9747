//! What clients' metrics come to, for the operator: one line a tenant and metric, over all clients of the
//! tenant, whatever they say about partitions, nodes and themselves. A scrape shows levels as the least,
//! the mean and the largest of the last five to ten minutes, and increases as a counter.
//!
//! Bounded in all directions: names are cut to what a metric may be called, a tenant and the node have a
//! number of lines, and what does not fit is counted and dropped. Lines that nobody has added to for an
//! hour make room.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use sluice_model::TenantId;
use tokio::time::Instant;

use super::otlp::{Meaning, Point};

/// The longest name of a metric.
const MAX_NAME_BYTES: usize = 128;
/// Levels are summed up over the window under way and the one before.
const WINDOW: Duration = Duration::from_secs(300);
/// A line that nothing was added to for so long may be forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);

/// How many lines are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) of_tenant: usize,
    pub(super) of_all: usize,
}

impl Default for Bounds {
    /// The Java client has about 60 metrics for each of its roles, and librdkafka about 20.
    fn default() -> Self {
        Self { of_tenant: 512, of_all: 16_384 }
    }
}

/// Why a number was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dropped {
    /// The name is no metric's.
    Name,
    /// The value is not finite, or a decrease of what only grows.
    Value,
    /// Distributions, and totals since the client's start.
    Kind,
    /// There are too many lines.
    Full,
    /// The client was not asked for it.
    NotWanted,
}

impl Dropped {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Value => "value",
            Self::Kind => "kind",
            Self::Full => "full",
            Self::NotWanted => "not_wanted",
        }
    }
}

/// Levels that came within one window.
#[derive(Clone, Copy, Debug)]
struct Levels {
    window: u64,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Levels {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn empty(window: u64) -> Self {
        Self { window, count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Levels { before: Levels, now: Levels },
    Increase(f64),
}

#[derive(Clone, Copy, Debug)]
struct Line {
    content: Content,
    seen: Instant,
}

#[derive(Debug, Default)]
struct Lines {
    of: HashMap<TenantId, HashMap<Box<str>, Line>>,
    count: usize,
}

/// See the module. One for a node.
#[derive(Debug)]
pub(super) struct Series {
    bounds: Bounds,
    begun: Instant,
    lines: Mutex<Lines>,
}

impl Series {
    pub(super) fn new(bounds: Bounds, now: Instant) -> Self {
        Self { bounds, begun: now, lines: Mutex::default() }
    }

    fn window(&self, now: Instant) -> u64 {
        now.duration_since(self.begun).as_secs() / WINDOW.as_secs()
    }

    /// Takes one number.
    pub(super) fn add(
        &self,
        now: Instant,
        tenant: TenantId,
        point: &Point<'_>,
    ) -> Result<(), Dropped> {
        let Point { metric, meaning, value } = *point;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
        if metric.is_empty() || metric.len() > MAX_NAME_BYTES || !metric.bytes().all(plain) {
            return Err(Dropped::Name);
        }
        let levels = match meaning {
            Meaning::Level => true,
            Meaning::Increase => false,
            Meaning::Total | Meaning::Distribution => return Err(Dropped::Kind),
        };
        if !value.is_finite() || (!levels && value < 0.0) {
            return Err(Dropped::Value);
        }
        let window = self.window(now);
        let mut lines = self.lines.lock();
        let known = lines.of.get_mut(&tenant).and_then(|of_tenant| of_tenant.get_mut(metric));
        let line = match known {
            Some(line) => line,
            None => self.make_line(&mut lines, now, tenant, metric, levels)?,
        };
        line.seen = now;
        match (&mut line.content, levels) {
            (Content::Levels { before, now }, true) => {
                if now.window != window {
                    *before = std::mem::replace(now, Levels::empty(window));
                }
                now.add(value);
                Ok(())
            }
            (Content::Increase(total), false) => {
                // Beyond the largest number nothing can be added.
                *total = (*total + value).min(f64::MAX);
                Ok(())
            }
            // Clients do not agree on what it is: the first one's word counts.
            (Content::Levels { .. } | Content::Increase(_), _) => Err(Dropped::Kind),
        }
    }

    fn make_line<'a>(
        &self,
        lines: &'a mut Lines,
        now: Instant,
        tenant: TenantId,
        metric: &str,
        levels: bool,
    ) -> Result<&'a mut Line, Dropped> {
        let own = |lines: &Lines| lines.of.get(&tenant).map_or(0, HashMap::len);
        if own(lines) >= self.bounds.of_tenant || lines.count >= self.bounds.of_all {
            lines.forget(now);
        }
        if own(lines) >= self.bounds.of_tenant || lines.count >= self.bounds.of_all {
            return Err(Dropped::Full);
        }
        lines.count += 1;
        let content = match levels {
            true => {
                let empty = Levels::empty(self.window(now));
                Content::Levels { before: empty, now: empty }
            }
            false => Content::Increase(0.0),
        };
        let of_tenant = lines.of.entry(tenant).or_default();
        Ok(of_tenant.entry(metric.into()).or_insert(Line { content, seen: now }))
    }

    pub(super) fn len(&self) -> usize {
        self.lines.lock().count
    }
}

impl Lines {
    fn forget(&mut self, now: Instant) {
        for of_tenant in self.of.values_mut() {
            of_tenant.retain(|_, line| now.duration_since(line.seen) <= FORGET_AFTER);
        }
        self.of.retain(|_, of_tenant| !of_tenant.is_empty());
        self.count = self.of.values().map(HashMap::len).sum();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LineLabels {
    tenant: u32,
    metric: String,
}

/// Lines of a scrape.
type Shown = Vec<(LineLabels, f64)>;

impl Collector for Series {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.encode_at(Instant::now(), encoder)
    }
}

impl Series {
    fn encode_at(
        &self,
        now: Instant,
        mut encoder: DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let window = self.window(now);
        let lines = self.lines.lock();
        let (mut least, mut mean, mut largest): (Shown, Shown, Shown) = Default::default();
        let mut increases: Shown = Vec::new();
        for (tenant, of_tenant) in &lines.of {
            for (metric, line) in of_tenant {
                let labels = LineLabels { tenant: tenant.0, metric: metric.to_string() };
                match &line.content {
                    Content::Increase(total) => increases.push((labels, *total)),
                    Content::Levels { before, now } => {
                        // What is older than the window before has nothing to say about now.
                        let recent = |l: &&Levels| l.count > 0 && l.window + 1 >= window;
                        let recent = || [before, now].into_iter().filter(recent);
                        let count: u64 = recent().map(|levels| levels.count).sum();
                        if count == 0 {
                            continue;
                        }
                        let sum: f64 = recent().map(|levels| levels.sum).sum();
                        let min = recent().map(|levels| levels.min).fold(f64::INFINITY, f64::min);
                        let max =
                            recent().map(|levels| levels.max).fold(f64::NEG_INFINITY, f64::max);
                        least.push((labels.clone(), min));
                        mean.push((labels.clone(), sum / count as f64));
                        largest.push((labels, max));
                    }
                }
            }
        }
        for (name, help, values) in [
            ("client_metric_min", "the least that clients of a tenant pushed lately", least),
            ("client_metric_mean", "the mean of what clients of a tenant pushed lately", mean),
            ("client_metric_max", "the largest that clients of a tenant pushed lately", largest),
        ] {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            show(family, values, |value, encoder| ConstGauge::new(value).encode(encoder))?;
        }
        let help = "what clients of a tenant have pushed, added up";
        let family = encoder.encode_descriptor("client_metric", help, None, MetricType::Counter)?;
        show(family, increases, |value, encoder| ConstCounter::new(value).encode(encoder))
    }
}

fn show(
    mut family: MetricEncoder<'_>,
    mut values: Shown,
    encode: impl Fn(f64, MetricEncoder<'_>) -> Result<(), fmt::Error>,
) -> Result<(), fmt::Error> {
    values.sort_unstable_by(|(a, _), (b, _)| (a.tenant, &a.metric).cmp(&(b.tenant, &b.metric)));
    for (labels, value) in values {
        encode(value, family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::registry::Registry;

    use super::*;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);

    fn point(metric: &str, meaning: Meaning, value: f64) -> Point<'_> {
        Point { metric, meaning, value }
    }

    /// A scrape at a moment of the test's choice.
    #[derive(Debug)]
    struct At(Arc<Series>, Instant);

    impl Collector for At {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            self.0.encode_at(self.1, encoder)
        }
    }

    fn shown(series: &Arc<Series>, now: Instant) -> Vec<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(At(Arc::clone(series), now)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn levels_and_increases_are_summed_up_for_each_tenant() {
        let now = Instant::now();
        let series = Arc::new(Series::new(Bounds::default(), now));
        for value in [1.0, 2.0, 6.0] {
            series.add(now, A, &point("a.level", Meaning::Level, value)).unwrap();
            series.add(now, A, &point("a.sum", Meaning::Increase, value)).unwrap();
        }
        series.add(now, B, &point("a.level", Meaning::Level, -1.0)).unwrap();
        let expected = [
            r#"client_metric_min{tenant="1",metric="a.level"} 1.0"#,
            r#"client_metric_min{tenant="2",metric="a.level"} -1.0"#,
            r#"client_metric_mean{tenant="1",metric="a.level"} 3.0"#,
            r#"client_metric_mean{tenant="2",metric="a.level"} -1.0"#,
            r#"client_metric_max{tenant="1",metric="a.level"} 6.0"#,
            r#"client_metric_max{tenant="2",metric="a.level"} -1.0"#,
            r#"client_metric_total{tenant="1",metric="a.sum"} 9.0"#,
        ];
        assert_eq!(shown(&series, now), expected);
        // Five minutes later what came then still counts, ten minutes later no more.
        let now = now + WINDOW;
        series.add(now, A, &point("a.level", Meaning::Level, 11.0)).unwrap();
        assert_eq!(
            shown(&series, now)[2],
            r#"client_metric_mean{tenant="1",metric="a.level"} 5.0"#
        );
        let now = now + WINDOW;
        assert_eq!(
            shown(&series, now)[1],
            r#"client_metric_mean{tenant="1",metric="a.level"} 11.0"#
        );
        let total = [r#"client_metric_total{tenant="1",metric="a.sum"} 9.0"#];
        assert_eq!(shown(&series, now + WINDOW), total);
    }

    #[test]
    fn lines_are_bounded_and_the_forgotten_make_room() {
        let bounds = Bounds { of_tenant: 2, of_all: 3 };
        let now = Instant::now();
        let series = Arc::new(Series::new(bounds, now));
        let add = |now, tenant, metric: &str| {
            series.add(now, tenant, &point(metric, Meaning::Level, 1.0))
        };
        assert_eq!((add(now, A, "a"), add(now, A, "b")), (Ok(()), Ok(())));
        assert_eq!((add(now, A, "c"), add(now, B, "a")), (Err(Dropped::Full), Ok(())));
        assert_eq!((add(now, B, "b"), series.len()), (Err(Dropped::Full), 3));
        assert_eq!(add(now, A, "a"), Ok(()));
        let now = now + FORGET_AFTER + Duration::from_secs(1);
        assert_eq!((add(now, B, "a"), add(now, A, "c"), series.len()), (Ok(()), Ok(()), 2));
    }

    #[test]
    fn what_is_no_metric_is_dropped() {
        let series = Series::new(Bounds::default(), Instant::now());
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        let now = Instant::now();
        for (metric, meaning, value, why) in [
            ("", Meaning::Level, 1.0, Dropped::Name),
            (&long, Meaning::Level, 1.0, Dropped::Name),
            ("a\"b\n", Meaning::Level, 1.0, Dropped::Name),
            ("a", Meaning::Level, f64::NAN, Dropped::Value),
            ("a", Meaning::Increase, -1.0, Dropped::Value),
            ("a", Meaning::Total, 1.0, Dropped::Kind),
            ("a", Meaning::Distribution, 0.0, Dropped::Kind),
        ] {
            assert_eq!(series.add(now, A, &point(metric, meaning, value)), Err(why));
        }
        assert_eq!(series.len(), 0);
        series.add(now, A, &point("a", Meaning::Level, 1.0)).unwrap();
        let other = series.add(now, A, &point("a", Meaning::Increase, 1.0));
        assert_eq!(other, Err(Dropped::Kind));
    }
}
