//! How long certificates are valid and when they are renewed. Pure: `now` is passed in.

use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Validity of a program's certificate. Renewal starts after two thirds, so that the controller may be down for days.
const LIFETIME: Duration = DAY.saturating_mul(30);
/// Tolerance for clock skew: validity begins this long before issuance.
const BACKDATED: Duration = DAY;

/// A certificate's validity period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub begins: SystemTime,
    /// Its last.
    pub ends: SystemTime,
}

impl Validity {
    /// Of a certificate issued at `now`.
    pub fn from(now: SystemTime) -> Self {
        Self {
            begins: now.checked_sub(BACKDATED).unwrap_or(now),
            ends: now.checked_add(LIFETIME).unwrap_or(now),
        }
    }

    /// Whether renewal is due at `now`: after two thirds of the period, or before its begin.
    pub fn is_due(&self, now: SystemTime) -> bool {
        let (Ok(whole), Ok(passed)) = (
            self.ends.duration_since(self.begins),
            now.duration_since(self.begins),
        ) else {
            return true;
        };
        passed >= whole * 2 / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_well_before_the_end_and_not_before() {
        let issued = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let validity = Validity::from(issued);
        for (days, is_due) in [(0, false), (15, false), (21, true), (29, true), (400, true)] {
            assert_eq!(validity.is_due(issued + DAY * days), is_due, "{days}");
            let at = issued + DAY * days;
            // While it is not due, enough time is left for retries.
            assert!(is_due || at + DAY * 8 < validity.ends);
        }
    }

    #[test]
    fn a_certificate_that_is_not_valid_yet_is_due() {
        let issued = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let validity = Validity::from(issued);
        assert!(!validity.is_due(issued - BACKDATED));
        assert!(validity.is_due(issued - BACKDATED - DAY));
        let nonsense = Validity {
            begins: issued,
            ends: issued - DAY,
        };
        assert!(nonsense.is_due(issued));
    }
}
