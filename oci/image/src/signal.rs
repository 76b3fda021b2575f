//! Names of signals, as images and services write them.

/// The signals of Linux by number, from 1 (signal(7)).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// Other names of the same signals.
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// The first and the last real-time signal of programs: the C libraries keep two for themselves.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal: `SIGTERM`, `term`, `15`, `RTMIN+3` or `SIGRTMAX-1`, in any case; `None` if there is no such
/// signal.
pub fn signal_number(name: &str) -> Option<i32> {
    let name = name.trim();
    if let Ok(number) = name.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == short) {
        return i32::try_from(at + 1).ok();
    }
    let alias = ALIASES.iter().find(|(alias, _)| *alias == short);
    alias
        .map(|(_, number)| *number)
        .or_else(|| real_time(short))
}

fn real_time(name: &str) -> Option<i32> {
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => (RTMIN, offset),
        (_, Some(offset)) => (RTMAX, offset),
        _ => return None,
    };
    let is_signed = offset.starts_with(['+', '-']);
    let offset: i32 = match offset {
        "" => 0,
        offset if is_signed => offset.parse().ok()?,
        _ => return None,
    };
    let number = base.checked_add(offset)?;
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_in_any_case_and_numbers() {
        for (name, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("sigquit", 3),
            ("Int", 2),
            ("15", 15),
            ("64", 64),
            ("SIGIOT", 6),
            ("SYS", 31),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("RTMAX", 64),
        ] {
            assert_eq!(signal_number(name), Some(number), "{name}");
        }
        for bad in [
            "",
            "0",
            "65",
            "-1",
            "SIG",
            "SIGNONSENSE",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN3",
            "RTMIN+31",
            "RTMIN+x",
        ] {
            assert_eq!(signal_number(bad), None, "{bad}");
        }
    }
}
