//! Many tenants in one workload: each with a topic, producers and consumers of its own. `produce.producers` and
//! `[consume]` are then each tenant's.

use serde::{Deserialize, Serialize};

use super::{Workload, between};
use crate::amount::Rate;
use crate::pace::Tempo;

/// Each has statistics of its own.
const MAX_TENANTS: u32 = 1000;

/// Who the tenants are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenants {
    /// So many that are all alike; instead of classes.
    pub count: Option<u32>,
    /// Kinds of tenants.
    #[serde(rename = "class")]
    pub classes: Vec<Class>,
}

/// Tenants that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// What the report calls them.
    pub name: String,
    /// How many.
    pub count: u32,
    /// What each of them writes. If it is left out, all tenants share the rate of `[produce]` or of the stage.
    pub rate: Option<Rate>,
    /// The stages in which they write; all if there are none.
    #[serde(default)]
    pub stages: Vec<String>,
}

impl Class {
    fn writes_in(&self, stage: &str) -> bool {
        self.stages.is_empty() || self.stages.iter().any(|known| known == stage)
    }
}

impl Tenants {
    /// The classes, by whatever way they were said.
    pub(crate) fn all(&self) -> Vec<Class> {
        let alike = self.count.map(|count| Class {
            name: "all".to_owned(),
            count,
            rate: None,
            stages: Vec::new(),
        });
        alike.into_iter().chain(self.classes.iter().cloned()).collect()
    }

    /// How many tenants there are.
    pub(crate) fn total(&self) -> u32 {
        self.all().iter().fold(0, |sum, class| sum.saturating_add(class.count))
    }

    /// Whether classes say what their tenants write.
    fn has_rates(&self) -> bool {
        self.classes.iter().any(|class| class.rate.is_some())
    }

    fn check(&self, workload: &Workload, wrong: &mut Vec<String>) {
        if self.count.is_some() != self.classes.is_empty() {
            wrong
                .push("tenants are said once: by tenants.count or by [[tenants.class]]".to_owned());
        }
        between(wrong, "the number of tenants", self.total().into(), 1, MAX_TENANTS.into());
        for class in &self.classes {
            let name = &class.name;
            if class.count == 0 {
                wrong.push(format!("tenants.class \"{name}\" must have at least one tenant"));
            }
            if class.rate.is_some() != self.has_rates() || class.rate == Some(Rate::Max) {
                wrong.push(format!(
                    "tenants.class \"{name}\": all classes have a rate, or none; and none has max"
                ));
            }
            if !class.stages.is_empty() && class.rate.is_none() {
                wrong.push(format!(
                    "tenants.class \"{name}\" needs a rate: it does not write in all stages"
                ));
            }
            for stage in &class.stages {
                if !workload.produce.stages.iter().any(|known| known.name == *stage) {
                    wrong.push(format!("tenants.class \"{name}\": there is no stage \"{stage}\""));
                }
            }
        }
        if workload.backlog.is_some() || workload.search.is_some() {
            wrong.push(
                "tenants go with produce.rate or stages, not with a backlog or a search".to_owned(),
            );
        }
    }
}

impl Workload {
    pub(super) fn check_tenants(&self, wrong: &mut Vec<String>) {
        let has_rates = self.tenants.as_ref().is_some_and(Tenants::has_rates);
        if let Some(tenants) = &self.tenants {
            tenants.check(self, wrong);
        }
        for stage in &self.produce.stages {
            if stage.rate.is_some() == has_rates {
                let name = &stage.name;
                wrong.push(format!("produce.stage \"{name}\": its rate must be said once, there or by the tenants' classes"));
            }
        }
        let given =
            [self.produce.rate.is_some(), !self.produce.stages.is_empty(), self.search.is_some()];
        let given = given.iter().filter(|given| **given).count();
        // Classes say it, too; stages then say only how long.
        let is_right = if has_rates { self.produce.rate.is_none() } else { given == 1 };
        if !is_right {
            wrong.push(
                "the rate must be said once: by produce.rate, by [[produce.stage]], by [search] or by [[tenants.class]]"
                    .to_owned(),
            );
        }
    }

    /// Records a second that are due in a stage with this rate, over all producers; none if it goes as fast as it
    /// can.
    pub(crate) fn due(&self, stage: &str, rate: Option<Rate>) -> Option<f64> {
        let size = self.records.size.0;
        match self.tenants.as_ref().filter(|tenants| tenants.has_rates()) {
            Some(tenants) => {
                let active = tenants.classes.iter().filter(|class| class.writes_in(stage));
                let rates = active.map(|class| {
                    let rate = class.rate.and_then(|rate| rate.records_per_second(size));
                    rate.unwrap_or_default() * f64::from(class.count)
                });
                Some(rates.sum())
            }
            None => rate.map_or(Some(0.0), |rate| rate.records_per_second(size)),
        }
    }

    /// What one tenant of a class writes in a stage, where all together have this tempo.
    pub(crate) fn tempo_of(&self, class: &Class, stage: &str, all: Tempo) -> Tempo {
        let total = self.tenants.as_ref().map_or(1, Tenants::total);
        match (all, class.rate) {
            (Tempo::Rest, _) => Tempo::Rest,
            (_, Some(rate)) if class.writes_in(stage) => {
                rate.records_per_second(self.records.size.0).into()
            }
            (_, Some(_)) => Tempo::Rest,
            (Tempo::Max, None) => Tempo::Max,
            (Tempo::Rate(rate), None) => Tempo::Rate(rate / f64::from(total)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISY: &str = "description = 'x'\nduration = '1s'\n[records]\nsize = '1KiB'\n[produce]\n\
        [[produce.stage]]\nname = 'alone'\nduration = '1s'\n\
        [[produce.stage]]\nname = 'beside'\nduration = '1s'\n\
        [[tenants.class]]\nname = 'quiet'\ncount = 9\nrate = '10/s'\n\
        [[tenants.class]]\nname = 'noisy'\ncount = 1\nrate = '1MiB/s'\nstages = ['beside']\n";

    #[test]
    fn classes_write_in_their_stages_at_their_rates() {
        let workload = Workload::parse(NOISY).expect("a workload");
        let [quiet, noisy] = &workload.tenants.as_ref().expect("tenants").all()[..] else {
            panic!("two classes")
        };
        assert_eq!(workload.due("alone", None), Some(90.0));
        assert_eq!(workload.due("beside", None), Some(1114.0));
        let all = Tempo::Rate(1114.0);
        assert_eq!(workload.tempo_of(quiet, "beside", all), Tempo::Rate(10.0));
        assert_eq!(workload.tempo_of(noisy, "alone", all), Tempo::Rest);
        assert_eq!(workload.tempo_of(noisy, "beside", all), Tempo::Rate(1024.0));
        assert_eq!(workload.tempo_of(noisy, "beside", Tempo::Rest), Tempo::Rest);
        let alike = "description = 'x'\nduration = '1s'\n[produce]\nrate = '500/s'\n[tenants]\ncount = 50\n";
        let workload = Workload::parse(alike).expect("a workload");
        let all = workload.tenants.as_ref().expect("tenants").all();
        assert_eq!(workload.due("steady", workload.produce.rate), Some(500.0));
        assert_eq!(workload.tempo_of(&all[0], "steady", Tempo::Rate(500.0)), Tempo::Rate(10.0));
        assert_eq!(workload.tempo_of(&all[0], "steady", Tempo::Max), Tempo::Max);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (from, to, told) in [
            ("count = 9", "count = 0", "must have at least one tenant"),
            ("'10/s'", "'max'", "none has max"),
            ("\nrate = '10/s'", "", "all classes have a rate, or none"),
            ("['beside']", "['besides']", "there is no stage \"besides\""),
            ("count = 9", "count = 1000", "the number of tenants must be between"),
            ("'alone'\n", "'alone'\nrate = '1/s'\n", "its rate must be said once"),
            ("[produce]\n", "[produce]\nrate = '1/s'\n", "the rate must be said once"),
            ("[produce]\n", "[tenants]\ncount = 1\n[produce]\n", "tenants are said once"),
        ] {
            assert!(NOISY.contains(from), "{from}");
            let wrong = Workload::parse(&NOISY.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(wrong.contains(told), "{to}: {wrong}");
        }
    }
}
