//! The local times that an expression names, in a calendar without changes of the clock.

use jiff::{
    SignedDuration,
    civil::{Date, DateTime, date},
};

use super::field::{Field, Range};

/// Where the search for a first local time begins.
pub(super) const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// The days of the month and of the week repeat after 28 years, or 40 across a century that is no leap year.
const MAX_DAYS: usize = 41 * 366;

const MINUTES: Range = range("minute", 0, 59, &[]);
const HOURS: Range = range("hour", 0, 23, &[]);
const DAYS: Range = range("day of the month", 1, 31, &[]);
const MONTHS: Range = range(
    "month",
    1,
    12,
    &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
);
const WEEKDAYS: Range = range(
    "day of the week",
    0,
    7,
    &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
);

/// The names that stand for five fields.
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let named = NAMED.iter().find(|(name, _)| *name == text);
        let fields = named.map_or(text, |(_, fields)| fields);
        if fields.starts_with('@') {
            let names: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "{text:?} is no schedule: the names are {}",
                names.join(", ")
            ));
        }
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!(
                "{text:?} has {} fields: write minute, hour, day of the month, month and day of the week, such as \"0 3 * * *\"",
                fields.len()
            ));
        };
        Ok(Self {
            text: text.to_owned(),
            minutes: Field::parse(minutes, MINUTES)?,
            hours: Field::parse(hours, HOURS)?,
            days: Field::parse(days, DAYS)?,
            months: Field::parse(months, MONTHS)?,
            weekdays: Field::parse(weekdays, WEEKDAYS)?.with_sunday(),
        })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether cron(8) counts it as one of fixed times.
    pub(super) fn is_fixed(&self) -> bool {
        !self.minutes.is_star && !self.hours.is_star
    }

    /// The first local time from `from` on.
    pub(super) fn next(&self, from: DateTime) -> Option<DateTime> {
        let mut day = from.date();
        let mut start = (from.hour() as u8, from.minute() as u8);
        for _ in 0..MAX_DAYS {
            if self.has_day(day)
                && let Some((hour, minute)) = self.next_time(start)
            {
                return Some(day.at(hour as i8, minute as i8, 0, 0));
            }
            day = day.tomorrow().ok()?;
            start = (0, 0);
        }
        None
    }

    /// The last local time up to `until`.
    pub(super) fn last(&self, until: DateTime) -> Option<DateTime> {
        let mut day = until.date();
        let mut end = (until.hour() as u8, until.minute() as u8);
        for _ in 0..MAX_DAYS {
            if self.has_day(day)
                && let Some((hour, minute)) = self.last_time(end)
            {
                return Some(day.at(hour as i8, minute as i8, 0, 0));
            }
            day = day.yesterday().ok()?;
            end = (23, 59);
        }
        None
    }

    /// Where both kinds of days are restricted, either is enough.
    fn has_day(&self, day: Date) -> bool {
        let of_month = self.days.has(day.day() as u8);
        let weekday = day.weekday().to_sunday_zero_offset() as u8;
        let of_week = self.weekdays.has(weekday);
        let is_day = match self.days.is_star || self.weekdays.is_star {
            true => of_month && of_week,
            false => of_month || of_week,
        };
        self.months.has(day.month() as u8) && is_day
    }

    fn next_time(&self, (hour, minute): (u8, u8)) -> Option<(u8, u8)> {
        if self.hours.has(hour)
            && let Some(minute) = self.minutes.next(minute)
        {
            return Some((hour, minute));
        }
        Some((self.hours.next(hour + 1)?, self.minutes.next(0)?))
    }

    fn last_time(&self, (hour, minute): (u8, u8)) -> Option<(u8, u8)> {
        if self.hours.has(hour)
            && let Some(minute) = self.minutes.last(minute)
        {
            return Some((hour, minute));
        }
        Some((
            self.hours.last(hour.checked_sub(1)?)?,
            self.minutes.last(59)?,
        ))
    }
}

/// The local time a minute later.
pub(super) fn following(local: DateTime) -> Option<DateTime> {
    local.checked_add(SignedDuration::from_secs(60)).ok()
}

/// The local time a minute earlier.
pub(super) fn preceding(local: DateTime) -> Option<DateTime> {
    local.checked_sub(SignedDuration::from_secs(60)).ok()
}

const fn range(what: &'static str, least: u8, most: u8, names: &'static [&'static str]) -> Range {
    Range {
        what,
        least,
        most,
        names,
    }
}
