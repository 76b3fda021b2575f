//! When a job runs: an expression of crontab(5) in a time zone. Pure: time is given, and the time zones are those of the library.
//!
//! Changes of the local time are handled as cron(8) handles them:
//!
//! - A *fixed-time* schedule, whose minute and hour do not begin with `*`, has one tick for each local time. One that is skipped
//!   has it right after the change; one that is repeated has it the first time only.
//! - Any other one has a tick whenever the local time fits: it goes by the time that has passed.

mod field;
mod local;
#[cfg(test)]
mod tests;

use std::{fmt, sync::LazyLock};

use jiff::{
    SignedDuration, Timestamp as Instant,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

use self::local::Pattern;
use crate::units::Timestamp;

/// The time zone of a schedule that names none.
pub const UTC: &str = "UTC";

/// Longest expression, in bytes.
const MAX_BYTES: usize = 1024;
/// More changes of the local time than there are between two ticks.
const MAX_CHANGES: usize = 256;
/// Longer than any change of the local time that repeats it.
const LONGEST_CHANGE: SignedDuration = SignedDuration::from_hours(26);

/// The time zones that come with the program, whichever the machine has.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Why a schedule cannot be used. A message for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// The times at which a job runs.
#[derive(Debug, Clone)]
pub struct Schedule {
    pattern: Pattern,
    zone: TimeZone,
}

/// Whether a time zone of this name is known.
pub fn is_time_zone(name: &str) -> bool {
    ZONES.get(name).is_ok()
}

/// A point in time as the clocks of a time zone show it, such as `2026-11-30T03:00[America/Sao_Paulo]`.
pub fn wall_time(at: Timestamp, zone: &str) -> String {
    let zone = ZONES.get(zone).unwrap_or(TimeZone::UTC);
    match instant(at) {
        Some(at) => {
            let zoned = at.to_zoned(zone);
            let name = zoned.time_zone().iana_name().unwrap_or(UTC).to_owned();
            format!("{}[{name}]", zoned.strftime("%Y-%m-%dT%H:%M"))
        }
        None => at.to_string(),
    }
}

impl Schedule {
    /// Reads an expression: five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly` or `@yearly`.
    ///
    /// # Errors
    /// What is wrong with it, which includes that it never comes.
    pub fn parse(text: &str, zone: &str) -> Result<Self, ScheduleError> {
        let zone = ZONES
            .get(zone)
            .map_err(|_| ScheduleError(format!("there is no time zone {zone:?}")))?;
        if text.len() > MAX_BYTES {
            let message = format!("an expression has at most {MAX_BYTES} bytes");
            return Err(ScheduleError(message));
        }
        let pattern = Pattern::parse(text).map_err(ScheduleError)?;
        if pattern.next(local::EPOCH).is_none() {
            let message = format!("it never comes: no month that {text:?} names has such a day");
            return Err(ScheduleError(message));
        }
        Ok(Self { pattern, zone })
    }

    /// The first tick after a point in time; `None` where the calendar ends before.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = instant(after)?;
        let tick = match self.pattern.is_fixed() {
            true => self.next_fixed(after),
            false => self.next_passing(after),
        };
        timestamp(tick?)
    }

    /// The last tick that is no later than a point in time.
    pub fn last(&self, until: Timestamp) -> Option<Timestamp> {
        let until = instant(until)?;
        let tick = match self.pattern.is_fixed() {
            true => self.last_fixed(until),
            false => self.last_passing(until),
        };
        timestamp(tick?)
    }

    fn next_fixed(&self, after: Instant) -> Option<Instant> {
        let mut local = self.pattern.next(minute(self.local(after)))?;
        loop {
            let tick = self.tick_of(local)?;
            if tick > after {
                return Some(tick);
            }
            local = self.pattern.next(local::following(local)?)?;
        }
    }

    fn last_fixed(&self, until: Instant) -> Option<Instant> {
        // A local time that is later by the clock may have come earlier.
        let mut local = self.local(until).checked_add(LONGEST_CHANGE).ok()?;
        loop {
            local = self.pattern.last(minute(local))?;
            let tick = self.tick_of(local)?;
            if tick <= until {
                return Some(tick);
            }
            local = local::preceding(local)?;
        }
    }

    /// When a local time has its tick.
    fn tick_of(&self, local: DateTime) -> Option<Instant> {
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => ambiguous.unambiguous().ok(),
            AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
            AmbiguousOffset::Gap { .. } => {
                let before = ambiguous.earlier().ok()?;
                let change = self.zone.following(before).next()?;
                Some(change.timestamp())
            }
        }
    }

    fn next_passing(&self, after: Instant) -> Option<Instant> {
        let mut from = whole_minute(after)?.checked_add(MINUTE).ok()?;
        for _ in 0..MAX_CHANGES {
            let local = self.local(from);
            let found = self.pattern.next(local)?;
            let tick = from.checked_add(found.duration_since(local)).ok()?;
            // While nothing changes before it.
            match self.zone.following(from).next() {
                Some(change) if change.timestamp() <= tick => from = change.timestamp(),
                _ => return Some(tick),
            }
        }
        None
    }

    fn last_passing(&self, until: Instant) -> Option<Instant> {
        let mut from = whole_minute(until)?;
        for _ in 0..MAX_CHANGES {
            let local = self.local(from);
            let found = self.pattern.last(local)?;
            let tick = from.checked_sub(local.duration_since(found)).ok()?;
            // `preceding` is strict.
            let next = from.checked_add(SignedDuration::from_nanos(1)).ok()?;
            match self.zone.preceding(next).next() {
                Some(change) if change.timestamp() > tick => {
                    from = whole_minute(change.timestamp().checked_sub(MINUTE).ok()?)?;
                }
                _ => return Some(tick),
            }
        }
        None
    }

    fn local(&self, at: Instant) -> DateTime {
        self.zone.to_datetime(at)
    }
}

/// The expression, with the time zone.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.iana_name().unwrap_or(UTC);
        write!(f, "{} ({zone})", self.pattern.text())
    }
}

const MINUTE: SignedDuration = SignedDuration::from_secs(60);

fn instant(at: Timestamp) -> Option<Instant> {
    Instant::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

fn timestamp(at: Instant) -> Option<Timestamp> {
    u64::try_from(at.as_millisecond()).ok().map(Timestamp)
}

fn whole_minute(at: Instant) -> Option<Instant> {
    let seconds = at.as_second();
    Instant::from_second(seconds - seconds.rem_euclid(60)).ok()
}

/// A local time without its seconds.
fn minute(local: DateTime) -> DateTime {
    local.date().at(local.hour(), local.minute(), 0, 0)
}
