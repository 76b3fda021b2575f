//! What a change of each field of a service's configuration means for its running processes.

use super::{ServiceConfig, volume};

/// What a change of a field means for running processes, in the order of how much it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It concerns no running process.
    Nothing,
    /// Processes that are on a worker where they may not be any more are moved.
    Placement,
    /// The routes to the processes change.
    Routes,
    /// Running processes reach other services.
    Paths,
    /// The process's agent uses the new value the next time it needs it.
    Agent,
    /// The process's agent goes on with the new probe.
    Probe,
    /// The process's agent sets the new limit for the running process.
    Resize,
    /// The process is replaced by one that is started with the new value.
    Process,
}

impl Effect {
    /// The effect in words, as the reference prints it.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Nothing => "nothing restarts",
            Self::Placement => {
                "processes that may not be where they are any more are moved, one by one; nothing else restarts"
            }
            Self::Routes => "only routes change; nothing restarts",
            Self::Paths => "running processes reach other services; nothing restarts",
            Self::Agent => "running processes are stopped by the new value; nothing restarts",
            Self::Probe => {
                "running processes are probed in the new way once they answer it; nothing restarts"
            }
            Self::Resize => "the limits of running processes are changed; nothing restarts",
            Self::Process => "the processes are replaced, one by one",
        }
    }
}

macro_rules! effects {
    ($($field:ident => $effect:ident,)*) => {
        /// The effect of a change of each field of [`ServiceConfig`], by the field's name.
        pub const EFFECTS: &[(&str, Effect)] = &[$((stringify!($field), Effect::$effect),)*];

        /// The effects of the fields in which two configurations differ.
        fn effects(a: &ServiceConfig, b: &ServiceConfig) -> impl Iterator<Item = Effect> {
            // Without `..`: a field that is missing in the table does not compile.
            let ServiceConfig { $($field,)* } = a;
            let fields = [$((stringify!($field), $field != &b.$field, Effect::$effect),)*];
            let volumes = volume::effect(&a.volume, &b.volume);
            let effect = move |(field, differs, effect): (&str, bool, Effect)| match field {
                _ if !differs => None,
                "volume" => Some(volumes),
                _ => Some(effect),
            };
            fields.into_iter().filter_map(effect)
        }
    };
}

effects! {
    name => Process,
    app => Nothing,
    concurrency => Nothing,
    image => Process,
    port => Process,
    ports => Process,
    hosts => Routes,
    path_prefix => Routes,
    env => Process,
    args => Process,
    env_file => Nothing,
    entrypoint => Process,
    working_dir => Process,
    hostname => Process,
    stop_signal => Agent,
    ulimits => Process,
    sysctls => Process,
    extra_hosts => Process,
    dns => Process,
    user => Process,
    memory => Resize,
    disk => Resize,
    cpus => Resize,
    cpus_reserved => Resize,
    placement => Placement,
    pids => Resize,
    caps => Process,
    read_only => Process,
    tmp_size => Process,
    init => Process,
    file => Process,
    mount => Process,
    devices => Process,
    secret => Process,
    volume => Process,
    needs => Paths,
    nearest => Routes,
    start_after => Nothing,
    shm_size => Process,
    health => Probe,
    drain => Routes,
    stop_timeout => Agent,
    kind => Process,
    retries => Nothing,
    deadline => Nothing,
    parallelism => Nothing,
    completions => Nothing,
    schedule => Nothing,
    timezone => Nothing,
    overlap => Nothing,
    catch_up => Nothing,
    before => Nothing,
    after => Nothing,
}

impl ServiceConfig {
    /// What a change to `other` means for running processes.
    pub fn change_to(&self, other: &Self) -> Effect {
        effects(self, other).max().unwrap_or(Effect::Nothing)
    }

    /// Whether processes of `self` are ones of `other` as they run: only concurrency, placement and routes differ.
    pub fn differs_in_routes_only(&self, other: &Self) -> bool {
        self.change_to(other) <= Effect::Routes
    }

    /// Whether processes of `self` need no replacement under `other`.
    pub fn same_process(&self, other: &Self) -> bool {
        self.change_to(other) < Effect::Process
    }
}

/// The effect of a change of a key, such as `memory` or `health.interval`; `None` if there is no such key.
pub fn effect_of(key: &str) -> Option<Effect> {
    if key == "volume.size" {
        return Some(Effect::Resize);
    }
    if key.starts_with("volume.backup") {
        return Some(Effect::Nothing);
    }
    let field = key.split('.').next()?;
    let mut all = EFFECTS.iter();
    all.find_map(|(name, effect)| (*name == field).then_some(*effect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse;

    fn config(more: &str) -> ServiceConfig {
        let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\n{more}");
        parse("a", &text).unwrap()
    }

    #[test]
    fn every_field_has_the_effect_of_the_table() {
        let others = [
            ("app = \"shop\"", Effect::Nothing),
            ("hosts = [\"a.b\"]", Effect::Routes),
            ("path_prefix = \"/x\"", Effect::Routes),
            ("drain = \"1s\"", Effect::Routes),
            ("needs = [\"b\"]", Effect::Paths),
            ("start_after = [\"b\"]", Effect::Nothing),
            ("nearest = true", Effect::Routes),
            ("stop_timeout = \"1s\"", Effect::Agent),
            ("stop_signal = \"SIGQUIT\"", Effect::Agent),
            ("entrypoint = [\"b\"]", Effect::Process),
            ("working_dir = \"/b\"", Effect::Process),
            ("dns = [\"10.0.0.1\"]", Effect::Process),
            ("health = { interval = \"2s\" }", Effect::Probe),
            ("health = { http = \"/x\" }", Effect::Probe),
            ("memory = \"1GiB\"", Effect::Resize),
            ("disk = \"1GiB\"", Effect::Resize),
            ("cpus = 2.0", Effect::Resize),
            ("cpus_reserved = 2.0", Effect::Resize),
            ("[placement]\nspread = \"zone\"", Effect::Placement),
            ("pids = 1000", Effect::Resize),
            ("env = { A = \"b\" }", Effect::Process),
            ("args = [\"b\"]", Effect::Process),
            ("user = \"1\"", Effect::Process),
            ("caps = \"web\"", Effect::Process),
            ("read_only = true", Effect::Process),
            ("init = true", Effect::Process),
            (
                "[[mount]]\npath = \"/x\"\ntmpfs = \"1MiB\"",
                Effect::Process,
            ),
            ("[[mount]]\npath = \"/x\"\nimage = \"b:1\"", Effect::Process),
            (
                "[[volume]]\nname = \"a\"\npath = \"/x\"\nsize = \"8MiB\"",
                Effect::Process,
            ),
            ("devices = [\"/dev/fuse\"]", Effect::Process),
            ("[[secret]]\nname = \"a\"", Effect::Process),
            ("[[file]]\npath = \"/x\"\ncontent = \"\"", Effect::Process),
            ("shm_size = \"1MiB\"", Effect::Process),
            ("image = \"b:1\"", Effect::Process),
            ("ports = { metrics = 9090 }", Effect::Process),
            ("before = { args = [\"b\"] }", Effect::Nothing),
            ("after = { args = [\"b\"] }", Effect::Nothing),
        ];
        for (line, effect) in others {
            let (usual, other) = (config(""), config(line));
            assert_eq!(usual.change_to(&other), effect, "{line}");
            assert_eq!(other.change_to(&usual), effect, "{line}");
            assert_eq!(usual.same_process(&other), effect != Effect::Process);
        }
        assert_eq!(config("").change_to(&config("")), Effect::Nothing);
    }

    #[test]
    fn of_several_changes_the_one_that_takes_most_counts() {
        let other = config("hosts = [\"a.b\"]\nmemory = \"1GiB\"");
        assert_eq!(config("").change_to(&other), Effect::Resize);
        let other = config("memory = \"1GiB\"\nenv = { A = \"b\" }");
        assert_eq!(config("").change_to(&other), Effect::Process);
    }

    #[test]
    fn a_volume_of_another_size_needs_no_new_process() {
        let volume = |size: &str, path: &str| {
            config(&format!(
                "[[volume]]\nname = \"a\"\npath = \"{path}\"\nsize = \"{size}\""
            ))
        };
        let usual = volume("8MiB", "/x");
        assert_eq!(usual.change_to(&volume("9MiB", "/x")), Effect::Resize);
        assert_eq!(usual.change_to(&volume("9MiB", "/y")), Effect::Process);
    }

    #[test]
    fn keys_below_a_field_have_its_effect() {
        assert_eq!(effect_of("health.interval"), Some(Effect::Probe));
        assert_eq!(effect_of("memory"), Some(Effect::Resize));
        assert_eq!(effect_of("no_such_key"), None);
    }
}
