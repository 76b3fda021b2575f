//! One field of an expression: a set of numbers.

/// Which numbers a field can have, and the names of some.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) what: &'static str,
    pub(super) least: u8,
    pub(super) most: u8,
    /// The names of the numbers from `least` on.
    pub(super) names: &'static [&'static str],
}

/// A set of numbers from 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    bits: u64,
    /// Whether it begins with `*`: cron(8) counts `*/5` too.
    pub(super) is_star: bool,
}

impl Field {
    /// Reads a list of numbers, ranges and steps.
    pub(super) fn parse(text: &str, range: Range) -> Result<Self, String> {
        let mut bits = 0;
        for part in text.split(',') {
            bits |= part_bits(part, range)?;
        }
        Ok(Self {
            bits,
            is_star: text.starts_with('*'),
        })
    }

    pub(super) fn has(self, number: u8) -> bool {
        self.bits & bit(number) != 0
    }

    /// The first number from `number` on.
    pub(super) fn next(self, number: u8) -> Option<u8> {
        let rest = self.bits & u64::MAX.checked_shl(u32::from(number))?;
        (rest != 0).then(|| rest.trailing_zeros() as u8)
    }

    /// The last number up to `number`.
    pub(super) fn last(self, number: u8) -> Option<u8> {
        let rest = self.bits & (u64::MAX >> (63 - number.min(63)));
        (rest != 0).then(|| 63 - rest.leading_zeros() as u8)
    }

    /// Sunday is 0 and 7.
    pub(super) fn with_sunday(mut self) -> Self {
        if self.has(7) {
            self.bits |= bit(0);
        }
        self
    }
}

fn part_bits(part: &str, range: Range) -> Result<u64, String> {
    let (numbers, step) = match part.split_once('/') {
        Some((numbers, step)) => (numbers, Some(step)),
        None => (part, None),
    };
    let (first, last) = match numbers.split_once('-') {
        _ if numbers == "*" => (range.least, range.most),
        Some((first, last)) => (number(first, range)?, number(last, range)?),
        None if step.is_some() => {
            return Err(format!(
                "{part:?} of the {} has a step of one number: write for example \"*/5\" or \"10-50/5\"",
                range.what
            ));
        }
        None => (number(numbers, range)?, number(numbers, range)?),
    };
    if first > last {
        return Err(format!(
            "{part:?} of the {} ends before it begins",
            range.what
        ));
    }
    let step = match step {
        None => 1,
        Some(text) => match text.parse::<u8>() {
            Ok(step) if step > 0 && is_digits(text) => step,
            _ => return Err(format!("{text:?} is not the step of a {}", range.what)),
        },
    };
    let numbers = (first..=last).step_by(usize::from(step));
    Ok(numbers.fold(0, |bits, number| bits | bit(number)))
}

fn number(text: &str, range: Range) -> Result<u8, String> {
    let lower = text.to_ascii_lowercase();
    let named = range.names.iter().zip(range.least..);
    if let Some((_, number)) = named.clone().find(|(name, _)| **name == lower) {
        return Ok(number);
    }
    match text.parse::<u8>() {
        Ok(number) if is_digits(text) && (range.least..=range.most).contains(&number) => Ok(number),
        _ => {
            let names = match (range.names.first(), range.names.last()) {
                (Some(first), Some(last)) => format!(", or {first} to {last}"),
                _ => String::new(),
            };
            Err(format!(
                "{text:?} is not a {}: write {} to {}{names}",
                range.what, range.least, range.most
            ))
        }
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

const fn bit(number: u8) -> u64 {
    1 << number
}
