//! Schedules over years, with controllers that stop and start: no tick twice, and none missed beyond `catch_up`.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tucano_api::{
    jobs::Trigger,
    service::ServiceConfig,
    units::{Span, Timestamp},
};
use tucano_planner::{Action, Cluster, Event, Record, Snapshot};

use tucano_simulator::{image, job, name, settings};

const YEARS: u64 = 3;
const DAY: Span = Span::secs(86_400);
/// 2024-01-01 00:00:00 UTC.
const BEGIN: Timestamp = Timestamp(1_704_067_200_000);

/// A controller without workers: a run ends as soon as it is stopped.
struct Controller {
    cluster: Cluster,
    ticks: Vec<Timestamp>,
}

impl Controller {
    fn restored(snapshot: Snapshot, now: Timestamp, ticks: Vec<Timestamp>) -> Self {
        let cluster = Cluster::restore(snapshot, Vec::new(), settings(), now);
        Self { cluster, ticks }
    }

    fn step(&mut self, now: Timestamp, event: Event) {
        let known = self.cluster.next_run(&name("j"));
        for action in self.cluster.step(now, event) {
            let Action::Persist(records) = action else {
                continue;
            };
            for record in records {
                if let Record::Run(run) = record
                    && run.number >= known
                    && let Trigger::Schedule { tick, .. } = run.trigger
                {
                    self.ticks.push(tick);
                }
            }
        }
        let active = self.cluster.runs(&name("j")).into_iter();
        for run in active.filter(|run| run.is_active()) {
            let event = Event::RunStopped {
                service: name("j"),
                number: run.number,
            };
            self.cluster.step(now, event);
        }
    }
}

fn schedule() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "30 2 * * *",
        "0 */6 * * *",
        "15 1,2,3 * * 0",
        "0 3 1 * *",
        "*/30 1-3 * * *",
        "45 1 * * 1-5",
        "@weekly",
        "0 0 29 2 *",
    ])
}

fn zone() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "Australia/Lord_Howe",
        "Africa/Cairo",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_tick_is_run_twice_and_none_is_missed_beyond_catch_up(
        schedule in schedule(), zone in zone(), catch_up_minutes in 0..180_u64,
        outages in prop::collection::vec((0..YEARS * 366 * 1440, 0..3000_u64, any::<bool>()), 0..60),
    ) {
        let config = ServiceConfig {
            schedule: Some(schedule.to_owned()),
            timezone: Some(zone.to_owned()),
            catch_up: Some(Span::secs(60 * catch_up_minutes)),
            ..job("j")
        };
        let (end, catch_up) = (Timestamp(BEGIN.0 + YEARS * 365 * DAY.as_millis()), config.run_catch_up());
        let ticks = config.run_schedule().unwrap();
        let mut outages: Vec<(Timestamp, Timestamp, bool)> = outages
            .into_iter()
            .map(|(at, minutes, copied)| {
                let begin = BEGIN.after(Span::secs(60 * at + 7));
                (begin, begin.after(Span::secs(60 * minutes)), copied)
            })
            .collect();
        outages.sort();
        let mut controller = Controller::restored(Snapshot::default(), BEGIN, Vec::new());
        controller.step(BEGIN, Event::ServiceConfigured { config: Box::new(config), image: image(1), platforms: Default::default() });
        let (mut now, mut expected) = (BEGIN, BTreeSet::new());
        let mut claimed = BEGIN;
        for (down, up, twice) in outages.into_iter().chain([(end, end, false)]) {
            // While it runs, each tick is run in time.
            while let Some(due) = controller.cluster.next_deadline().filter(|due| *due < down.max(now)) {
                now = due;
                controller.step(now, Event::Tick);
            }
            while let Some(tick) = ticks.next(claimed).filter(|tick| *tick <= now) {
                expected.insert(tick);
                claimed = tick;
            }
            now = now.max(up).min(end);
            // Of what has passed meanwhile the last one, unless it is too late.
            if let Some(last) = ticks.last(now).filter(|last| *last > claimed) {
                if now.since(last) <= catch_up {
                    expected.insert(last);
                }
                claimed = last;
            }
            for _ in 0..=usize::from(twice) {
                let (snapshot, known) = (controller.cluster.snapshot(), controller.ticks);
                controller = Controller::restored(snapshot, now, known);
                controller.step(now, Event::Tick);
            }
        }
        let run: BTreeSet<Timestamp> = controller.ticks.iter().copied().collect();
        prop_assert_eq!(run.len(), controller.ticks.len(), "a tick was run twice");
        prop_assert_eq!(run, expected, "{} in {}", schedule, zone);
    }
}
