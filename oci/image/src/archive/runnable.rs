//! Whether a service can run an image: what a node would find out when it starts a process, found out before.

use tucano_oci_user::{Reference, Wanted};

use super::inspect::{Contents, Found};
use crate::{content::store::Store, error::Error, manifest::image::Image, signal::signal_number};

/// Where programs are looked for when neither the service nor the image says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Ids in a container.
const IDS: u32 = 65_536;
/// File systems that a container has in place of the image's directories.
const MOUNTED: [&str; 3] = ["/proc/", "/dev/", "/sys/"];

/// What a service sets in place of the image's configuration.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Program and first arguments, in place of the image's `Entrypoint`. Its `Cmd` is not used then.
    pub entrypoint: Option<Vec<String>>,
    /// The arguments, in place of the image's `Cmd`.
    pub args: Option<Vec<String>>,
    /// The working directory, in place of the image's `WorkingDir`.
    pub working_dir: Option<String>,
    /// The user, in place of the image's `User`.
    pub user: Option<String>,
    /// The variable `PATH`, in place of the image's.
    pub path: Option<String>,
    /// Directories in place of which something else is mounted: what is in them is not known.
    pub mounted: Vec<String>,
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
        let user = wanted_user(&user)?;
        let mut warnings = Vec::new();
        if let Some(contents) = self.contents(image)? {
            check_user(&contents, &user)?;
            check_program(&contents, image, overrides, &command)?;
            warnings.extend(id_warning(&contents));
        }
        Ok(warnings)
    }

    /// Why the health check of a stored image cannot run in its containers: a sentence for the sysadmin. `None` if it can.
    ///
    /// # Errors
    /// As [`Store::contents`].
    pub fn healthcheck_obstacle(
        &self,
        image: &Image,
        overrides: &Overrides,
    ) -> Result<Option<String>, Error> {
        let program = image.healthcheck.as_ref().and_then(|it| it.command.first());
        let contents = self.contents(image)?;
        let (Some(program), Some(contents)) = (program, contents) else {
            return Ok(None);
        };
        match check_program(&contents, image, overrides, program) {
            Ok(()) => Ok(None),
            Err(Error::CannotRun(why)) => Ok(Some(why)),
            Err(other) => Err(other),
        }
    }

    /// Checks that the files of a stored image can be mounted into a container of another; returns what the sysadmin should know.
    ///
    /// # Errors
    /// As [`Store::contents`].
    pub fn check_mountable(&self, image: &Image) -> Result<Vec<String>, Error> {
        let contents = self.contents(image)?;
        Ok(contents.iter().filter_map(id_warning).collect())
    }
}

fn id_warning(contents: &Contents) -> Option<String> {
    let count = contents.high_ids();
    (count > 0).then(|| {
        format!(
            "{count} entries of the image belong to ids above 65535, which show as 65534 in a container"
        )
    })
}

fn cannot_run(reason: String) -> Error {
    Error::CannotRun(reason)
}

fn command(image: &Image, overrides: &Overrides) -> Result<String, Error> {
    let config = image.config.config().as_ref();
    let own = || config.and_then(|config| config.entrypoint().clone());
    let entrypoint = overrides.entrypoint.clone().or_else(own);
    let image_args = || config.and_then(|config| config.cmd().clone());
    let image_args = || image_args().filter(|_| overrides.entrypoint.is_none());
    let args = overrides.args.clone().or_else(image_args);
    let mut words = entrypoint.into_iter().chain(args).flatten();
    words.next().filter(|word| !word.is_empty()).ok_or_else(|| {
        cannot_run(
            "it has neither Entrypoint nor Cmd: set the service's `args` to a command".to_owned(),
        )
    })
}

/// Parses the user; its numbers must be ids of a container.
fn wanted_user(text: &str) -> Result<Wanted, Error> {
    let wanted = Wanted::parse(text).map_err(|error| match error {
        tucano_oci_user::Error::BadId(_) => too_high(text),
        error => cannot_run(error.to_string()),
    })?;
    let group = wanted.group.as_ref().and_then(Reference::id);
    let mut ids = wanted.user.id().into_iter().chain(group);
    if ids.any(|id| id >= IDS) {
        return Err(too_high(text));
    }
    Ok(wanted)
}

fn too_high(user: &str) -> Error {
    cannot_run(format!(
        "its user {user:?} has an id above {}, which a container does not have",
        IDS - 1
    ))
}

/// Checks the user as the runtime looks it up. What is in a file that only a link leads to is found out at the start.
fn check_user(contents: &Contents, user: &Wanted) -> Result<(), Error> {
    let text = |path: &str| {
        let bytes = contents.accounts(path)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (passwd, group) = (text("etc/passwd"), text("etc/group"));
    let group_of_user = Wanted {
        user: Reference::Id(0),
        group: user.group.clone(),
    };
    let ids = match (&passwd, &group) {
        (Some(passwd), Some(group)) => user.ids(passwd, group),
        // Without group(5) the user can be looked up, and without passwd(5) the group.
        (Some(passwd), None) => Wanted {
            user: user.user.clone(),
            group: None,
        }
        .ids(passwd, ""),
        (None, Some(group)) => group_of_user.ids("", group),
        (None, None) => return Ok(()),
    };
    let ids = ids.map_err(|error| cannot_run(error.to_string()))?;
    let mut all = ids.groups.iter().chain([&ids.uid, &ids.gid]);
    match all.find(|id| **id >= IDS) {
        Some(id) => Err(cannot_run(format!(
            "its user is or is in {id} in /etc/passwd or /etc/group, and a container has ids to {}",
            IDS - 1
        ))),
        None => Ok(()),
    }
}

fn check_program(
    contents: &Contents,
    image: &Image,
    overrides: &Overrides,
    command: &str,
) -> Result<(), Error> {
    let candidates = candidates(image, overrides, command);
    let mut found = None;
    for path in &candidates {
        if is_mounted(path, overrides) {
            return Ok(());
        }
        if let Found::File { mode, bytes } = contents.find(path.as_bytes())
            && mode & 0o111 != 0
        {
            found = Some((path, bytes));
            break;
        }
    }
    let Some((path, head)) = found else {
        return Err(cannot_run(format!(
            "it has no executable file {command:?}, which its command starts (looked at {})",
            candidates.join(", ")
        )));
    };
    check_machine(path, &head)?;
    match interpreter(&head) {
        Some(interpreter) if !is_mounted(&interpreter, overrides) => {
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
    let own = || config.and_then(|config| config.working_dir().clone());
    let directory = overrides.working_dir.clone().or_else(own);
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

fn is_mounted(path: &str, overrides: &Overrides) -> bool {
    let is_below = |mount: &String| {
        let rest = path.strip_prefix(mount.as_str());
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    MOUNTED.iter().any(|mount| path.starts_with(mount)) || overrides.mounted.iter().any(is_below)
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
