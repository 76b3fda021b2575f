//! Signals by number and by name (signal(7)), real-time ones included.

use std::str::FromStr;

use nix::sys::signal::Signal as Named;
use rustix::process::Signal;

use crate::sys;

/// A signal by its number.
pub(crate) fn from_number(number: i32) -> Option<Signal> {
    Signal::from_named_raw(number).or_else(|| sys::realtime_signal(number))
}

/// A signal by name (`TERM`, `SIGTERM`, `RTMIN+3`), in upper or lower case, or by number.
pub(crate) fn parse(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse() {
        return from_number(number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = || Named::from_str(&format!("SIG{name}")).ok();
    from_number(realtime(name).or_else(|| named().map(|signal| signal as i32))?)
}

/// The number of `RTMIN+3` or `RTMAX-1`.
fn realtime(name: &str) -> Option<i32> {
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        text => text.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from),
    };
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => Some(libc::SIGRTMIN() + offset(rest, '+')?),
        (_, Some(rest)) => Some(libc::SIGRTMAX() - offset(rest, '-')?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(parse(text), Some(Signal::TERM), "{text}");
        }
        let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
        for (text, number) in [
            ("SIGRTMIN", first),
            ("rtmin+3", first + 3),
            ("SIGRTMAX-1", last - 1),
            ("64", 64),
        ] {
            assert_eq!(parse(text).map(Signal::as_raw), Some(number), "{text}");
        }
        for bad in [
            "",
            "SIG",
            "NOPE",
            "0",
            "-1",
            "99",
            "SIGSIGTERM",
            "RTMIN+99",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
