use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, zone).unwrap()
}

fn at(text: &str) -> Timestamp {
    timestamp(text.parse::<Instant>().unwrap()).unwrap()
}

fn text(at: Timestamp) -> String {
    instant(at).unwrap().to_string()
}

/// All ticks after `from`, up to `until`.
fn ticks(text: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
    let schedule = schedule(text, zone);
    let (mut now, until) = (at(from), at(until));
    let mut all = Vec::new();
    while let Some(tick) = schedule.next(now).filter(|tick| *tick <= until) {
        assert_eq!(schedule.last(tick), Some(tick));
        all.push(self::text(tick));
        now = tick;
    }
    let last = schedule.last(until).filter(|last| *last > at(from));
    assert_eq!(last.map(self::text), all.last().cloned());
    all
}

#[test]
fn expressions_are_those_of_crontab() {
    for (text, from, next) in [
        ("0 3 * * *", "2026-11-30T03:00:00Z", "2026-12-01T03:00:00Z"),
        (
            "*/15 * * * *",
            "2026-11-30T03:14:59Z",
            "2026-11-30T03:15:00Z",
        ),
        (
            "5,10-12 9-17/4 * * 1-5",
            "2026-11-28T00:00:00Z",
            "2026-11-30T09:05:00Z",
        ),
        (
            "0 0 1 jan *",
            "2026-11-30T00:00:00Z",
            "2027-01-01T00:00:00Z",
        ),
        (
            "0 0 * * SUN",
            "2026-11-30T00:00:00Z",
            "2026-12-06T00:00:00Z",
        ),
        ("0 0 * * 7", "2026-11-30T00:00:00Z", "2026-12-06T00:00:00Z"),
        ("0 0 29 2 *", "2097-01-01T00:00:00Z", "2104-02-29T00:00:00Z"),
        // Either kind of day is enough where both are restricted.
        ("0 0 13 * 5", "2026-11-30T00:00:00Z", "2026-12-04T00:00:00Z"),
        // Not where one of them begins with a star.
        (
            "0 0 */13 * 5",
            "2026-11-30T00:00:00Z",
            "2027-01-01T00:00:00Z",
        ),
        ("@daily", "2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("@hourly", "2026-11-30T00:00:00Z", "2026-11-30T01:00:00Z"),
        ("@weekly", "2026-11-30T00:00:00Z", "2026-12-06T00:00:00Z"),
        ("@monthly", "2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("@yearly", "2026-11-30T00:00:00Z", "2027-01-01T00:00:00Z"),
    ] {
        let tick = schedule(text, UTC).next(at(from)).unwrap();
        assert_eq!(self::text(tick), next, "{text}");
    }
}

#[test]
fn what_is_no_expression_is_refused() {
    for text in [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "5/10 * * * *",
        "*/0 * * * *",
        "+5 * * * *",
        "a * * * *",
        "1, * * * *",
        "@fortnightly",
        "0 0 31 2 *",
        "0 0 31 4,6 *",
        "- * * * *",
        "1-2-3 * * * *",
        "@reboot",
    ] {
        assert!(Schedule::parse(text, UTC).is_err(), "{text}");
    }
    assert!(Schedule::parse("0 0 * * *", "Nowhere/Land").is_err());
    assert!(is_time_zone("America/Sao_Paulo") && !is_time_zone("Mars/Olympus"));
}

/// The clocks of Berlin skip from 02:00 to 03:00 at 01:00 UTC.
#[test]
fn a_skipped_time_has_its_tick_right_after_the_change() {
    let day = |text| {
        ticks(
            text,
            "Europe/Berlin",
            "2026-03-29T00:00:00Z",
            "2026-03-29T03:00:00Z",
        )
    };
    assert_eq!(day("30 2 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(day("0,30 2 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(day("0 2,3 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(
        day("30 2,3 * * *"),
        ["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]
    );
    // Not one that goes by the time that passes.
    assert_eq!(day("*/30 2 * * *"), Vec::<String>::new());
    assert_eq!(
        day("30 * * * *"),
        [
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:30:00Z",
            "2026-03-29T02:30:00Z"
        ]
    );
}

/// The clocks of Berlin go back from 03:00 to 02:00 at 01:00 UTC.
#[test]
fn a_repeated_time_has_one_tick_unless_time_itself_counts() {
    let day = |text| {
        ticks(
            text,
            "Europe/Berlin",
            "2026-10-24T23:00:00Z",
            "2026-10-25T02:00:00Z",
        )
    };
    assert_eq!(day("30 2 * * *"), ["2026-10-25T00:30:00Z"]);
    assert_eq!(day("0 2 * * *"), ["2026-10-25T00:00:00Z"]);
    assert_eq!(day("0 3 * * *"), ["2026-10-25T02:00:00Z"]);
    assert_eq!(
        day("30 * * * *"),
        [
            "2026-10-24T23:30:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:30:00Z"
        ]
    );
    assert_eq!(day("*/30 2 * * *").len(), 4);
}

/// Lord Howe Island changes by half an hour; Cairo skips midnight; Samoa skipped a whole day.
#[test]
fn changes_of_any_length_at_any_hour_are_handled() {
    let island = ticks(
        "45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-04T00:00:00Z",
        "2026-04-05T00:00:00Z",
    );
    assert_eq!(island, ["2026-04-04T14:45:00Z"]);
    let cairo = ticks(
        "0 0 * * *",
        "Africa/Cairo",
        "2026-04-23T00:00:00Z",
        "2026-04-25T00:00:00Z",
    );
    assert_eq!(cairo, ["2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"]);
    let samoa = ticks(
        "0 12 * * *",
        "Pacific/Apia",
        "2011-12-29T00:00:00Z",
        "2011-12-31T23:00:00Z",
    );
    assert_eq!(
        samoa,
        [
            "2011-12-29T22:00:00Z",
            "2011-12-30T10:00:00Z",
            "2011-12-30T22:00:00Z",
            "2011-12-31T22:00:00Z"
        ]
    );
    let utc = ticks(
        "30 1 * * *",
        UTC,
        "2022-10-29T00:00:00Z",
        "2022-10-31T00:00:00Z",
    );
    assert_eq!(utc, ["2022-10-29T01:30:00Z", "2022-10-30T01:30:00Z"]);
}

#[test]
fn a_tick_is_shown_as_the_clocks_show_it() {
    let tick = at("2026-11-30T06:00:00Z");
    assert_eq!(
        wall_time(tick, "America/Sao_Paulo"),
        "2026-11-30T03:00[America/Sao_Paulo]"
    );
    assert_eq!(
        schedule("0 3 * * *", "America/Sao_Paulo").to_string(),
        "0 3 * * * (America/Sao_Paulo)"
    );
}

fn field(most: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        Just("*".to_owned()),
        (0..=most).prop_map(|number| number.to_string()),
        (1..=most).prop_map(|step| format!("*/{step}")),
        (0..=most, 0..=most).prop_map(|(a, b)| format!("{},{}", a, b)),
        (0..=most, 0..=most).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
    ]
}

fn zone() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        UTC,
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "Australia/Lord_Howe",
        "Africa/Cairo",
        "Asia/Kathmandu",
        "America/St_Johns",
        "Africa/Casablanca",
        "Pacific/Apia",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Minute by minute, the other way round: which minutes are ticks.
    #[test]
    fn ticks_are_those_that_cron_would_find_minute_by_minute(
        minute in field(59), hour in field(23), zone in zone(), start in 0..15_u64 * 366 * 1440,
    ) {
        let text = format!("{minute} {hour} * * *");
        let schedule = schedule(&text, zone);
        let tz = ZONES.get(zone).unwrap();
        let start = 1_262_304_000 + start * 60;
        let is_fixed = !minute.starts_with('*') && !hour.starts_with('*');
        let names = |local: DateTime| schedule.pattern.next(local) == Some(local);
        let minutes = (start - 26 * 3600..start + 2 * 86_400).step_by(60);
        let (mut seen, mut before) = (HashSet::new(), None);
        let mut expected = Vec::new();
        for now in minutes {
            let here = tz.to_datetime(Instant::from_second(now as i64).unwrap());
            let is_first = seen.insert(here);
            // The local times before this one that no minute stood for.
            let skipped = std::iter::successors(before.and_then(local::following), |it| local::following(*it));
            let mut skipped = skipped.take_while(|it| *it < here);
            let is_tick = match is_fixed {
                true => names(here) && is_first || skipped.any(names),
                false => names(here),
            };
            if is_tick && now >= start {
                expected.push(Timestamp(now * 1000));
            }
            before = Some(here);
        }
        let (mut found, mut now) = (Vec::new(), Timestamp((start - 60) * 1000));
        while let Some(tick) = schedule.next(now).filter(|tick| tick.0 < (start + 2 * 86_400) * 1000) {
            prop_assert_eq!(schedule.last(tick), Some(tick));
            prop_assert_eq!(schedule.last(Timestamp(tick.0 + 59_999)), Some(tick));
            found.push(tick);
            now = tick;
        }
        prop_assert_eq!(found, expected, "{} in {}", text, zone);
    }

    #[test]
    fn any_text_and_any_time_is_handled(text in "[0-9*/,@a-z -]{0,20}", time: u64) {
        if let Ok(schedule) = Schedule::parse(&text, "America/New_York") {
            let next = schedule.next(Timestamp(time));
            prop_assert!(next.is_none_or(|next| next.0 > time));
            let last = schedule.last(Timestamp(time));
            prop_assert!(last.is_none_or(|last| last.0 <= time));
        }
    }
}
