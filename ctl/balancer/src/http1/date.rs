//! The date of a response, which the first recipient with a clock adds if it is missing (RFC 9110, section 6.6.1).

use std::time::SystemTime;

/// Length of a date in the preferred format.
pub const DATE_LEN: usize = 29;

/// RFC 9110, section 5.6.7, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn date(time: SystemTime) -> [u8; DATE_LEN] {
    let mut text = [b' '; DATE_LEN];
    let date = httpdate::fmt_http_date(time);
    // Years beyond 9999 have no date in this format.
    if date.len() == DATE_LEN {
        text.copy_from_slice(date.as_bytes());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn dates_are_in_the_preferred_format() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        ] {
            let date = date(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(date, text.as_bytes());
        }
    }
}
