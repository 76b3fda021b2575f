//! For how long certificates are valid, and when they are to be renewed. Pure: no clock here.

use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Of a program's certificate. It is renewed long before, so a controller may be away for some days.
const LIFETIME: Duration = DAY.saturating_mul(30);
/// Clocks differ: what is issued now is valid since then.
const BACKDATED: Duration = DAY;

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub begins: SystemTime,
    /// Its last.
    pub ends: SystemTime,
}

impl Validity {
    /// Of a certificate that is issued at `now`.
    pub fn from(now: SystemTime) -> Self {
        Self {
            begins: now.checked_sub(BACKDATED).unwrap_or(now),
            ends: now.checked_add(LIFETIME).unwrap_or(now),
        }
    }

    /// Whether it is to be renewed at `now`: after two thirds of its time, or where the clock says that it has not begun.
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
            // Whenever it is not due, there is time left to do it.
            assert!(is_due || at + DAY * 8 < validity.ends);
        }
    }

    #[test]
    fn a_clock_that_went_back_is_no_reason_to_wait() {
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
