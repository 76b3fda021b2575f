//! Which values of a service's configuration are accepted, and which make sense together.
//!
//! [`Validate::validate`] holds for every configuration that is stored anywhere; agents check it again. Rules that came
//! later are in [`Validate::problems`] alone: they bind what is deployed from then on, and configurations that are stored
//! already go on running.

mod probe;

use super::{
    Health, MAX_CONCURRENCY, ServiceConfig, backup, device, file, job, mount, needs, placement,
    port, process, secret, targets, volume,
};
use crate::{
    settings::{Problem, Validate},
    units::{Bytes, Span},
};

/// Largest user or group id: a container's user namespace has 65,536 of each.
const MAX_ID: u32 = 65_535;
/// Longest name of a user or group, in bytes; shadow's tools allow 32, others more.
const MAX_USER_BYTES: usize = 256;
/// Longest name of an environment variable, in bytes.
const MAX_ENV_NAME_BYTES: usize = 256;
/// Longest argument or value of a variable, in bytes: what execve(2) takes (MAX_ARG_STRLEN) without its NUL.
const MAX_ARGUMENT_BYTES: usize = (128 << 10) - 1;
/// Most arguments, variables and host names each.
const MAX_ITEMS: usize = 4096;
/// Largest amount of memory or disk.
const MAX_BYTES: Bytes = Bytes(1 << 50);

impl Validate for ServiceConfig {
    fn validate(&self) -> Result<(), Problem> {
        stored_rules(self).into_iter().next().map_or(Ok(()), Err)
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = stored_rules(self);
        problems.extend(user_problem(self.user.as_deref()));
        problems.extend(size_problems(self));
        problems.extend(job::problems(self));
        problems.extend(needs::deploy_problems(self));
        problems
    }
}

impl Validate for Health {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let kinds = [
            self.http.is_some(),
            self.tcp == Some(true),
            self.exec.is_some(),
        ];
        if kinds.iter().filter(|given| **given).count() > 1 {
            let problem = Problem::new("health", "give only one of http, tcp and exec");
            problems.push(problem);
        }
        if let Some(path) = &self.http {
            problems.extend(path_problem("health.http", path));
        }
        if self
            .exec
            .as_ref()
            .is_some_and(|command| command.is_empty() || command[0].is_empty())
        {
            problems.push(Problem::new("health.exec", "name the program to run"));
        }
        problems.extend(probe::request_problems(self));
        for (key, span, most) in [
            ("health.interval", self.interval, 3600),
            ("health.timeout", self.timeout, 600),
            ("health.grace", self.grace, 86_400),
        ] {
            if !(Span::millis(10)..=Span::secs(most)).contains(&span) {
                let message = format!("write a duration from 10ms to {}", Span::secs(most));
                problems.push(Problem::new(key, message));
            }
        }
        problems
    }
}

fn stored_rules(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = number_problems(config);
    problems.extend(port::problems(config));
    problems.extend(tmpfs_problems(config));
    problems.extend(config.hosts.iter().filter_map(|host| host_problem(host)));
    if let Some(prefix) = &config.path_prefix {
        problems.extend(path_problem("path_prefix", prefix));
    }
    let variables = config.env.iter();
    problems.extend(variables.filter_map(|(name, value)| env_problem(name, value)));
    for (index, argument) in config.args.iter().flatten().enumerate() {
        if argument.contains('\0') {
            let message = "an argument cannot contain a NUL byte";
            problems.push(Problem::new(format!("args[{index}]"), message));
        }
    }
    if config.user.as_ref().is_some_and(|user| user.contains('\0')) {
        problems.push(Problem::new("user", "a user cannot contain a NUL byte"));
    }
    problems.extend(file::problems(config));
    problems.extend(mount::problems(config));
    problems.extend(volume::problems(config));
    problems.extend(device::problems(config));
    problems.extend(backup::problems(config));
    problems.extend(secret::problems(config));
    problems.extend(needs::problems(config));
    problems.extend(targets::problems(config));
    problems.extend(placement::problems(config));
    problems.extend(job::stored_problems(config));
    problems.extend(process::problems(config));
    problems.extend(config.health.problems());
    problems
}

/// A list of so many items of a kind is too long.
pub(super) fn length_problem(list: &str, what: &str, count: usize, most: usize) -> Option<Problem> {
    let message = || format!("{count} {what} are too many: the limit is {most}");
    (count > most).then(|| Problem::new(list, message()))
}

/// Ids of a file's owner and group that a container does not have; `item` is the file's place in the configuration.
pub(super) fn owner_problems(item: &str, uid: u32, gid: u32) -> impl Iterator<Item = Problem> {
    let wrong = [("uid", uid), ("gid", gid)].into_iter();
    let wrong = wrong.filter(|(_, id)| *id > MAX_ID);
    wrong.map(move |(key, id)| {
        let message = format!("{id} is out of range: write 0 to {MAX_ID}");
        Problem::new(format!("{item}.{key}"), message)
    })
}

fn number_problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(concurrency_problem(config));
    for (key, size, least) in [("memory", config.memory, 4), ("disk", config.disk, 1)] {
        if !(Bytes::mib(least)..=MAX_BYTES).contains(&size) {
            let message = format!("{size} is out of range: write {least} MiB to 1 PiB");
            problems.push(Problem::new(key, message));
        }
    }
    if config
        .cpus
        .is_some_and(|cpus| !(0.01..=1024.0).contains(&cpus))
    {
        problems.push(Problem::new("cpus", "write a number from 0.01 to 1024"));
    }
    problems.extend(placement::cpus_problem(config));
    if !(1..=4_194_304).contains(&config.pids) {
        problems.push(Problem::new("pids", "write a number from 1 to 4194304"));
    }
    let times = [
        ("drain", config.drain.unwrap_or_default()),
        ("stop_timeout", config.stop_timeout),
    ];
    for (key, time) in times {
        if time > Span::secs(3600) {
            problems.push(Problem::new(key, "write a duration of at most 1h"));
        }
    }
    problems
}

fn concurrency_problem(config: &ServiceConfig) -> Option<Problem> {
    let count = config.concurrency;
    if config.is_job() {
        // It has none, which is a rule of its own.
        return None;
    }
    let message = match (config.placement.everywhere, count) {
        (true, 0) => return None,
        (true, _) => {
            let message = "is for services without `placement.everywhere`, which have one process on each worker that fits: remove one of both";
            return Some(Problem::new("concurrency", message).depending_on("placement.everywhere"));
        }
        (false, 1..=MAX_CONCURRENCY) => return None,
        (false, 0) => format!(
            "0 processes cannot be kept alive, and a missing key counts as 0: write 1 to {MAX_CONCURRENCY}, or `everywhere = true` in `placement`, or remove the service"
        ),
        (false, _) => format!(
            "{count} processes cannot be kept alive: write 1 to {MAX_CONCURRENCY}, or remove the service"
        ),
    };
    Some(Problem::new("concurrency", message))
}

/// A tmpfs counts as memory: one that is larger than all of it could never be filled.
fn tmpfs_problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, size) in [("tmp_size", config.tmp_size), ("shm_size", config.shm_size)] {
        if size.is_some_and(|size| !(Bytes(4096)..=config.memory).contains(&size)) {
            let message = format!("write a size from 4KiB to `memory`, {}", config.memory);
            problems.push(Problem::new(key, message).depending_on("memory"));
        }
    }
    if config.tmp_size.is_some() && !config.read_only {
        let message =
            "has no effect without `read_only = true`: only then is /tmp a file system of its own";
        problems.push(Problem::new("tmp_size", message).depending_on("read_only"));
    }
    problems
}

/// Whether a name of at most so many bytes consists of labels of 1 to 63 allowed bytes, which neither begin nor end with `-`.
pub(super) fn has_labels(name: &str, most: usize, is_allowed: impl Fn(u8) -> bool) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(&is_allowed)
    };
    name.len() <= most && name.split('.').all(is_label)
}

fn host_problem(host: &str) -> Option<Problem> {
    let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if has_labels(host, 253, is_allowed) {
        return None;
    }
    let message = format!(
        "{host:?} is not a host name: write for example \"www.example.org\", in lower case and without port"
    );
    Some(Problem::new("hosts", message))
}

fn path_problem(key: &str, path: &str) -> Option<Problem> {
    let plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if path.starts_with('/') && plain && path.len() <= 1024 {
        return None;
    }
    let message =
        format!("{path:?} is not a path: it starts with '/', has no spaces and at most 1024 bytes");
    Some(Problem::new(key, message))
}

fn env_problem(name: &str, value: &str) -> Option<Problem> {
    if name.is_empty() || name.contains(['=', '\0']) {
        let message =
            format!("{name:?} is not the name of a variable: it has no '=' and no NUL byte");
        return Some(Problem::new("env", message));
    }
    // Values may be secrets: they are not shown.
    value.contains('\0').then(|| {
        let message = format!("the value of {name} cannot contain a NUL byte");
        Problem::new("env", message)
    })
}

/// `user`, `uid`, `user:group` or `uid:gid`. Whether the image has such a user, only the image says.
fn user_problem(user: Option<&str>) -> Option<Problem> {
    let user = user?;
    let problem = |message: String| Some(Problem::new("user", message));
    if user.len() > 2 * MAX_USER_BYTES {
        let length = user.len();
        return problem(format!(
            "{length} bytes are no user: the limit is {MAX_USER_BYTES} bytes for each name"
        ));
    }
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let parts = [Some(name), group].into_iter().flatten();
    match parts
        .filter(|part| !part.is_empty())
        .find(|part| !is_account(part))
    {
        Some(part) => problem(format!(
            "{part:?} is neither a name nor an id from 0 to {MAX_ID}: write \"user\", \"uid\", \"user:group\" or \"uid:gid\""
        )),
        None => None,
    }
}

/// A number in range, or a name that passwd(5) can hold.
fn is_account(part: &str) -> bool {
    let is_number = part
        .trim_start_matches(['-', '+'])
        .bytes()
        .all(|b| b.is_ascii_digit());
    match is_number {
        true => {
            part.bytes().all(|b| b.is_ascii_digit())
                && part.parse::<u32>().is_ok_and(|id| id <= MAX_ID)
        }
        false => {
            part.len() <= MAX_USER_BYTES
                && !part
                    .contains(|c: char| c.is_control() || c.is_whitespace() || c == ':' || c == '/')
        }
    }
}

/// The bounds of execve(2), which otherwise refuses at each start.
fn size_problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    let arguments = config.args.as_ref().map_or(0, Vec::len);
    for (key, count) in [
        ("args", arguments),
        ("entrypoint", config.entrypoint.as_ref().map_or(0, Vec::len)),
        ("env", config.env.len()),
        ("hosts", config.hosts.len()),
    ] {
        problems.extend(length_problem(key, "entries", count, MAX_ITEMS));
    }
    for (name, value) in &config.env {
        if name.len() > MAX_ENV_NAME_BYTES || name.len() + value.len() > MAX_ARGUMENT_BYTES {
            let shown: String = name.chars().take(40).collect();
            let message = format!(
                "{shown:?} is too long: the limits are {MAX_ENV_NAME_BYTES} bytes for a name and {MAX_ARGUMENT_BYTES} with its value"
            );
            problems.push(Problem::new("env", message));
        }
    }
    problems
}
