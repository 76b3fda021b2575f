//! Whether a service can run an image: what a node would find out when it starts a process, found out before.

use super::inspect::{Contents, Found};
use crate::{content::store::Store, error::Error, manifest::image::Image, signal::signal_number};

/// Where programs are looked for when neither the service nor the image says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Ids in a container.
const IDS: u32 = 65_536;
/// Longest `User`.
const USER_BYTES: usize = 512;
/// File systems that a container has in place of the image's directories.
const MOUNTED: [&str; 3] = ["/proc/", "/dev/", "/sys/"];

/// What a service sets in place of the image's configuration.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The arguments, in place of the image's `Cmd`.
    pub args: Option<Vec<String>>,
    /// The user, in place of the image's `User`.
    pub user: Option<String>,
    /// The variable `PATH`, in place of the image's.
    pub path: Option<String>,
}

impl Store {
    /// Checks that a process of a stored image can start; returns what the sysadmin should know.
    ///
    /// # Errors
    /// `cannot_run` with the reason: no command, a missing program or user, an id that a container does not have, a
    /// program for another machine, or an unknown signal. Otherwise as [`Store::contents`].
    pub fn check_runnable(
        &self,
        image: &Image,
        overrides: &Overrides,
    ) -> Result<Vec<String>, Error> {
        let config = image.config.config().as_ref();
        let signal = config.and_then(|config| config.stop_signal().clone());
        if let Some(signal) = signal.filter(|signal| !signal.is_empty())
            && signal_number(&signal).is_none()
        {
            return Err(cannot_run(format!(
                "its StopSignal {signal:?} is unknown: use a name of signal(7), such as SIGTERM or RTMIN+3"
            )));
        }
        let command = command(image, overrides)?;
        let user = overrides.user.clone();
        let user = user.or_else(|| config.and_then(|config| config.user().clone()));
        let user = user.unwrap_or_default();
        check_ids(&user)?;
        let mut warnings = Vec::new();
        if image.has_healthcheck {
            warnings.push(
                "the image's HEALTHCHECK is not used: configure the service's health check with `health`"
                    .to_owned(),
            );
        }
        if let Some(contents) = self.contents(image)? {
            check_user(&contents, &user)?;
            check_program(&contents, image, overrides, &command)?;
            if contents.high_ids() > 0 {
                warnings.push(format!(
                    "{} entries of the image belong to ids above 65535, which show as 65534 in a container",
                    contents.high_ids()
                ));
            }
        }
        Ok(warnings)
    }
}

fn cannot_run(reason: String) -> Error {
    Error::CannotRun(reason)
}

fn command(image: &Image, overrides: &Overrides) -> Result<String, Error> {
    let config = image.config.config().as_ref();
    let entrypoint = config.and_then(|config| config.entrypoint().clone());
    let args = overrides.args.clone();
    let args = args.or_else(|| config.and_then(|config| config.cmd().clone()));
    let mut words = entrypoint.into_iter().chain(args).flatten();
    words.next().filter(|word| !word.is_empty()).ok_or_else(|| {
        cannot_run(
            "it has neither Entrypoint nor Cmd: set the service's `args` to a command".to_owned(),
        )
    })
}

/// Checks the numbers of `user`, `uid`, `user:group`, `uid:gid`, and of those with an empty part.
fn check_ids(user: &str) -> Result<(), Error> {
    if user.len() > USER_BYTES {
        return Err(cannot_run(format!(
            "its user has {} bytes, and {USER_BYTES} is the limit",
            user.len()
        )));
    }
    for part in user.split(':').filter(|part| is_number(part)) {
        if part.parse::<u32>().ok().is_none_or(|id| id >= IDS) {
            return Err(cannot_run(format!(
                "its user {user:?} has an id above {}, which a container does not have",
                IDS - 1
            )));
        }
    }
    Ok(())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn check_user(contents: &Contents, user: &str) -> Result<(), Error> {
    let (name, group) = user.split_once(':').unwrap_or((user, ""));
    for (name, file, kind) in [(name, "etc/passwd", "user"), (group, "etc/group", "group")] {
        if name.is_empty() || is_number(name) {
            continue;
        }
        let Some(text) = contents.accounts(file) else {
            continue;
        };
        let is_known = String::from_utf8_lossy(&text)
            .lines()
            .any(|line| has_id(line, name));
        if !is_known {
            return Err(cannot_run(format!(
                "it has no {kind} {name:?} in /{file}: use a number, or a {kind} of the image"
            )));
        }
    }
    Ok(())
}

/// Whether a line of passwd or group is about this name, and has a valid id.
fn has_id(line: &str, name: &str) -> bool {
    let mut fields = line.trim().split(':');
    let is_name = fields.next() == Some(name);
    let id = fields.nth(1).and_then(|id| id.parse::<u32>().ok());
    is_name && id.is_some_and(|id| id != u32::MAX)
}

fn check_program(
    contents: &Contents,
    image: &Image,
    overrides: &Overrides,
    command: &str,
) -> Result<(), Error> {
    let candidates = candidates(image, overrides, command);
    if candidates.iter().any(|path| is_mounted(path)) {
        return Ok(());
    }
    let found = candidates
        .iter()
        .find_map(|path| match contents.find(path.as_bytes()) {
            Found::File { mode, bytes } if mode & 0o111 != 0 => Some((path, bytes)),
            _ => None,
        });
    let Some((path, head)) = found else {
        return Err(cannot_run(format!(
            "it has no executable file {command:?}, which its command starts (looked at {})",
            candidates.join(", ")
        )));
    };
    check_machine(path, &head)?;
    match interpreter(&head) {
        Some(interpreter) if !is_mounted(&interpreter) => {
            match contents.find(interpreter.as_bytes()) {
                Found::File { .. } => Ok(()),
                _ => Err(cannot_run(format!(
                    "{path} is a script for {interpreter}, which the image does not have as an executable file"
                ))),
            }
        }
        _ => Ok(()),
    }
}

/// The absolute paths where the program may be.
fn candidates(image: &Image, overrides: &Overrides, command: &str) -> Vec<String> {
    let config = image.config.config().as_ref();
    let directory = config.and_then(|config| config.working_dir().clone());
    let directory = directory.filter(|directory| !directory.is_empty());
    if command.starts_with('/') {
        return vec![command.to_owned()];
    }
    if command.contains('/') {
        return vec![format!("{}/{command}", directory.unwrap_or_default())];
    }
    let path = overrides.path.clone().or_else(|| {
        let env = config.and_then(|config| config.env().clone());
        let path = |variable: &String| Some(variable.strip_prefix("PATH=")?.to_owned());
        env.unwrap_or_default().iter().rev().find_map(path)
    });
    let path = path.unwrap_or_else(|| DEFAULT_PATH.to_owned());
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{}/{command}", directory.trim_end_matches('/')))
        .collect()
}

fn is_mounted(path: &str) -> bool {
    MOUNTED.iter().any(|mount| path.starts_with(mount))
}

/// The interpreter of a script; `None` for other files, or if its line is not complete.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?;
    let end = line.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&line[..end]).ok()?;
    let interpreter = line.split_ascii_whitespace().next()?;
    interpreter.starts_with('/').then(|| interpreter.to_owned())
}

/// Refuses an ELF program for another machine.
fn check_machine(path: &str, head: &[u8]) -> Result<(), Error> {
    let accepted: &[u16] = match std::env::consts::ARCH {
        "x86_64" => &[62, 3],
        "aarch64" => &[183, 40],
        _ => return Ok(()),
    };
    let (Some(b"\x7fELF"), Some(order), Some(machine)) =
        (head.get(..4), head.get(5), head.get(18..20))
    else {
        return Ok(());
    };
    let machine = [machine[0], machine[1]];
    let machine = match order {
        2 => u16::from_be_bytes(machine),
        _ => u16::from_le_bytes(machine),
    };
    if accepted.contains(&machine) {
        return Ok(());
    }
    let name = match machine {
        3 => "i386".to_owned(),
        40 => "arm".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv".to_owned(),
        other => format!("the ELF machine {other}"),
    };
    Err(cannot_run(format!(
        "its program {path} is for {name}, and the nodes are {}",
        std::env::consts::ARCH
    )))
}
